"""Ranking: the order of candidate texts for a query, by a score of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.forms.entities import plain
from confide.common.forms.labels import number_of
from confide.common.forms.rankings import area, list_problem, ndcg, reciprocal_rank
from confide.common.forms.texts import made_up_words, text_problem
from confide.common.forms.windows import fitting_text, require_fast
from confide.common.tasks.task import Example, Record, Task, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

_QUERY, _CANDIDATE = 1, 2


class Ranking(Task):
    """Settings of `[task]` for kind "ranking", and the task itself.

    A record has a ``query``, a list of ``candidates`` and the ``relevance`` of each, from 0 to the public ``highest``.
    It is one unit, and each candidate is an example. An example's loss may depend on itself alone, so candidates are
    not compared in one loss. Each is told relevant or not, and both sides of a list weigh the same.
    """

    headline: ClassVar[str] = "ndcg"
    pipeline_tag: ClassVar[str] = "text-ranking"
    kind: Literal["ranking"]
    max_length: int = Field(128, ge=32, le=8192)
    highest: float = Field(1.0, gt=0.0, le=1e6)
    max_candidates: int = Field(16, ge=2, le=256)

    @property
    def num_outputs(self) -> int:
        """One score."""
        return 1

    def inputs(self) -> tuple[str, ...]:
        """Return the columns of query and candidates."""
        return ("query", "candidates")

    def answers(self) -> tuple[str, ...]:
        """Return the column of the relevance."""
        return ("relevance",)

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        wrong = text_problem(record["query"], "query")
        return wrong or list_problem(record["candidates"], record["relevance"], self.highest)

    def cut(self, record: dict[str, Any], max_chars: int) -> dict[str, Any]:
        """Return a record with its texts cut."""
        short, given = super().cut(record, max_chars), plain(record["candidates"])
        if not isinstance(given, list) or not any(isinstance(text, str) and len(text) > max_chars for text in given):
            return short
        return {**short, "candidates": [text[:max_chars] if isinstance(text, str) else text for text in given]}

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a query of one word with as many candidates as are read, the first of them relevant."""
        query, *candidate = made_up_words(seed, number, 1 + (words or self.max_length))
        relevance = [self.highest] + [0.0] * (self.max_candidates - 1)
        return {"query": query, "candidates": [" ".join(candidate)] * self.max_candidates, "relevance": relevance}

    def truth(self, record: Record) -> list[float]:
        """Return the relevance of each candidate, as a share of the highest."""
        return [(number_of(value) or 0.0) / self.highest for value in plain(record.get("relevance")) or []]

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return one example for each of the first `max_candidates` candidates, behind the query.

        ``relevant`` and ``other`` are the weights of its two losses: over a list each of them adds up to half of the
        number of candidates, if the list has candidates of both sides.
        """
        require_fast(tokenizer, self.kind)
        query = fitting_text(record["query"], tokenizer, self.max_length // 3)
        candidates = plain(record["candidates"])[: self.max_candidates]
        shares = (self.truth(record) + [0.0] * len(candidates))[: len(candidates)]
        relevant, other = sum(shares), sum(1 - share for share in shares)
        half = len(shares) / 2 if relevant and other else len(shares)
        return [
            {
                **_pair(query, text, tokenizer, self.max_length),
                "number": number,
                "relevant": half * share / relevant if share else 0.0,
                "other": half * (1 - share) / other if share < 1 else 0.0,
            }
            for number, (text, share) in enumerate(zip(candidates, shares, strict=True))
        ]

    def columns(self) -> Mapping[str, int]:
        """Return the columns beside the token ids; padding is of no part."""
        return {"token_type_ids": 0, "part": 0}

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with a head that compares each token with the query."""
        from confide.common.tasks.heads import QuestionHead

        return QuestionHead(adapted, hidden_size, self.num_outputs)

    def _logits(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the score of each example, shape ``(B,)``: the mean over the candidate's tokens."""
        each = module(**model_inputs(batch), question=batch["part"] == _QUERY).float().squeeze(2)
        mask = (batch["part"] == _CANDIDATE).float()
        logits: Tensor = (each * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        return logits

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the binary cross-entropies of each example, weighted within its list, shape ``(B,)``."""
        import torch

        logits = self._logits(module, batch)
        # As classes of logits 0 and x: a CPU computes a sigmoid in vectors, and the numbers beside them otherwise.
        logs = torch.stack([torch.zeros_like(logits), logits], dim=1).log_softmax(dim=1)
        return -(logs * torch.stack([batch["other"], batch["relevant"]], dim=1)).sum(dim=1)

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[tuple[int, float]]:
        """Return the number of each candidate, and its score from 0 to 1."""
        scores = self._logits(module, batch).sigmoid().nan_to_num(0.5).tolist()
        return list(zip(batch["number"].tolist(), scores, strict=True))

    def join(self, record: Record, outputs: list[tuple[int, float]]) -> list[float]:
        """Return the score of each candidate; 0 for those beyond the ones that are read."""
        scores = dict(outputs)
        return [scores.get(number, 0.0) for number in range(len(plain(record["candidates"])))]

    def program(self) -> str:
        """Return the program's lines: they read JSON, and print the score of each candidate as JSON."""
        return (
            "import json\n\n"
            "record, scores = json.loads(text), []\n"
            f"room = {self.max_length // 3}\n"
            "kept = tokenizer(record['query'], add_special_tokens=False, truncation=True, max_length=room,\n"
            "                 return_offsets_mapping=True)['offset_mapping']\n"
            "query = record['query'][: max((end for _, end in kept), default=0)]\n"
            f"for candidate in record['candidates'][:{self.max_candidates}]:\n"
            f"    tokens = tokenizer(query, candidate, truncation='only_second', max_length={self.max_length},\n"
            "                       return_tensors='pt')\n"
            "    with torch.inference_mode():\n"
            "        states = model(**tokens).last_hidden_state[0] - head['centre']\n"
            "    asked, told = (torch.tensor([part == n for part in tokens.sequence_ids(0)]) for n in (0, 1))\n"
            "    mean = states[asked].sum(0) / max(int(asked.sum()), 1)\n"
            "    each = torch.cat([states, states * mean], dim=1) @ head['weight'].T + head['bias']\n"
            "    scores.append(float((each[told].sum() / max(int(told.sum()), 1)).sigmoid()))\n"
            "print(json.dumps(scores + [0.0] * (len(record['candidates']) - len(scores))))"
        )

    def metrics(self, truths: Sequence[list[float]], predictions: Sequence[list[float]]) -> dict[str, float]:
        """Return means over all lists that have an order: NDCG, reciprocal rank (MRR), AUC; 0 without a list."""
        rates: dict[str, Callable[..., float | None]] = {"ndcg": ndcg, "mrr": reciprocal_rank, "auc": area}
        pairs = list(zip(truths, predictions, strict=True))
        each = {name: [found for pair in pairs if (found := rate(*pair)) is not None] for name, rate in rates.items()}
        return {name: sum(found) / len(found) if found else 0.0 for name, found in each.items()}

    def rightness(self, truth: list[float], prediction: list[float]) -> float:
        """Return the NDCG of one list; 1 where every order is as good."""
        found = ndcg(truth, prediction)
        return 1.0 if found is None else found


def _pair(query: str, candidate: str, tokenizer: Any, max_length: int) -> Example:
    """Return the tokens of query and candidate, and the part to which each belongs; the candidate is cut."""
    encoded = tokenizer(query, candidate, truncation="only_second", max_length=max_length)
    parts = {None: 0, 0: _QUERY, 1: _CANDIDATE}
    columns = {name: list(encoded[name]) for name in ("input_ids", "token_type_ids") if name in encoded}
    return {**columns, "part": [parts[source] for source in encoded.sequence_ids(0)]}
