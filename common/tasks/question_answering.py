"""Question answering: the passage of a context that answers a question, or that it holds no answer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.errors import InputError
from confide.common.forms.answers import Beyond, answers_problem, is_exact, overlap, pairs_of, with_beyond
from confide.common.forms.texts import made_up_words, text_problem
from confide.common.forms.windows import fitting_text, require_fast
from confide.common.tasks.task import Example, Record, Task, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

_QUESTION, _PLACE = 1, 2  # of a token: it is the question's; an answer may start or end at it
_LONGEST = 30  # tokens of an answer that is found

Found = tuple[float, int, int]  # how much better than no answer, first character, and the one behind the last


class QuestionAnswering(Task):
    """Settings of `[task]` for kind "question-answering", and the task itself.

    A record has a ``context``, a ``question`` and ``answers``: an object with ``text``, a list, and ``answer_start``,
    the first character of each in the context. Both are empty for a question without an answer.
    """

    headline: ClassVar[str] = "exact match"
    pipeline_tag: ClassVar[str] = "question-answering"
    kind: Literal["question-answering"]
    max_length: int = Field(384, ge=32, le=8192)
    max_windows: int = Field(4, ge=1, le=64)

    @property
    def num_outputs(self) -> int:
        """One for the start and one for the end."""
        return 2

    def inputs(self) -> tuple[str, ...]:
        """Return the columns of context and question."""
        return ("context", "question")

    def answers(self) -> tuple[str, ...]:
        """Return the column of the answers."""
        return ("answers",)

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        context = record["context"]
        wrong = text_problem(context, "context") or text_problem(record["question"], "question")
        return wrong or answers_problem(record["answers"], context)

    def cut(self, record: dict[str, Any], max_chars: int) -> dict[str, Any]:
        """Return a record with its texts cut. Its answers stay, or an empty one would count as right."""
        short = super().cut(record, max_chars)
        if "answers" not in record or short["context"] is record["context"]:
            return short
        return {**short, "answers": with_beyond(record["answers"], record["context"], max_chars)}

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a made-up context, a question of one word, and the first word of the context as its answer."""
        question, *context = made_up_words(seed, number, 1 + (words or self.max_length * self.max_windows))
        answers = {"text": context[:1], "answer_start": [0]}
        return {"context": " ".join(context), "question": question, "answers": answers}

    def truth(self, record: Record) -> list[str]:
        """Return every answer that is right; none for a question without an answer."""
        return [str(text) for text, _ in pairs_of(record["answers"]) or []]

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return windows of a context, each behind the question; neighbours share a quarter of their tokens.

        Of the answers the first before the cut is learnt. A window that lacks it is an example of a question without an
        answer. Only the first such window counts: they would outvote the answer in the mean over the record. The others
        have weight 0, and those that count weigh as much more. Where no window holds the answer, all have weight 0: the
        context would be learnt as one without an answer.
        """
        require_fast(tokenizer, self.kind)
        encoded = tokenizer(
            fitting_text(record["question"], tokenizer, self.max_length // 3),
            record["context"],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.max_length // 4,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        pairs = pairs_of(record.get("answers")) or []
        answer = next((pair for pair in pairs if not isinstance(pair[1], Beyond)), next(iter(pairs), None))
        numbers = range(min(len(encoded["input_ids"]), self.max_windows))
        windows = [_window(encoded, number, answer) for number in numbers]
        empty = [number for number, window in enumerate(windows) if window["starts"][0]]
        idle = empty[1:] if answer is None or len(empty) < len(windows) else empty
        weight = len(windows) / max(1, len(windows) - len(idle))
        return [{**window, "weight": 0.0 if number in idle else weight} for number, window in enumerate(windows)]

    def why_no_example(self, record: Record, tokenizer: Any) -> str | None:
        """Return why a checked record teaches nothing: no window holds its first answer; None if one does."""
        try:
            if any(window["weight"] for window in self.examples(record, tokenizer)):
                return None
        except InputError as error:
            return str(error)
        return (
            "no window that is read holds its first answer: it stands too far back, or is too long; raise max_chars or "
            "task.max_windows, or shorten the context"
        )

    def columns(self) -> Mapping[str, int]:
        """Return the columns beside the token ids; padding is of no part, and so no answer starts or ends in it."""
        return dict.fromkeys(("token_type_ids", "part", "starts", "ends", "first", "behind"), 0)

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with a head that compares each token with the question."""
        from confide.common.tasks.heads import QuestionHead

        return QuestionHead(adapted, hidden_size, self.num_outputs)

    def _logits(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return logits of start and end, shape ``(B, 2, T)``; minus infinity where no answer may start or end."""
        logits = module(**model_inputs(batch), question=batch["part"] == _QUESTION).float()
        masked: Tensor = logits.masked_fill((batch["part"] != _PLACE).unsqueeze(2), float("-inf"))
        return masked.transpose(1, 2)

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the mean of the cross-entropies of start and end, weighted, shape ``(B,)``."""
        import torch

        logs = self._logits(module, batch).log_softmax(dim=2)
        right = torch.stack([batch["starts"], batch["ends"]], dim=1) > 0
        return -torch.where(right, logs, 0.0).sum(dim=(1, 2)) / 2 * batch["weight"]

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[Found]:
        """Return the best passage of each example, of at most 30 tokens."""
        import torch

        start, end = self._logits(module, batch).unbind(dim=1)
        size = start.shape[1]
        usable = torch.ones(size, size, dtype=torch.bool, device=start.device).triu().tril(_LONGEST - 1)
        usable[0] = False  # the first token stands for no answer
        each = (start.unsqueeze(2) + end.unsqueeze(1)).masked_fill(~usable, float("-inf"))
        best, place = each.flatten(1).max(dim=1)
        better = (best - start[:, 0] - end[:, 0]).tolist()
        first = batch["first"].gather(1, (place // size).unsqueeze(1)).squeeze(1).tolist()
        behind = batch["behind"].gather(1, (place % size).unsqueeze(1)).squeeze(1).tolist()
        return list(zip(better, first, behind, strict=True))

    def join(self, record: Record, outputs: list[Found]) -> str:
        """Return the best passage of all windows; an empty text if no answer is better."""
        better, first, behind = max(outputs, key=lambda found: found[0], default=(0.0, 0, 0))
        return str(record["context"])[first:behind] if better > 0 else ""

    def program(self) -> str:
        """Return the program's lines: they read JSON, and of a long context the first window only."""
        return (
            "import json\n\n"
            "record = json.loads(text)\n"
            "context, question = record['context'], record['question']\n"
            f"room = {self.max_length // 3}\n"
            "kept = tokenizer(question, add_special_tokens=False, truncation=True, max_length=room,\n"
            "                 return_offsets_mapping=True)['offset_mapping']\n"
            "question = question[: max((end for _, end in kept), default=0)]\n"
            f"tokens = tokenizer(question, context, truncation='only_second', max_length={self.max_length},\n"
            "                   return_tensors='pt', return_offsets_mapping=True)\n"
            "spans, sources = tokens.pop('offset_mapping')[0].tolist(), tokens.sequence_ids(0)[1:]\n"
            "with torch.inference_mode():\n"
            "    states = model(**tokens).last_hidden_state[0] - head['centre']\n"
            "asked = torch.tensor([False] + [source == 0 for source in sources])\n"
            "mean = states[asked].sum(0) / max(int(asked.sum()), 1)\n"
            "logits = torch.cat([states, states * mean], dim=1) @ head['weight'].T + head['bias']\n"
            "usable = torch.tensor([True] + [source == 1 for source in sources])\n"
            "start, end = logits.masked_fill(~usable.unsqueeze(1), -torch.inf).unbind(1)\n"
            "nothing = start[0] + end[0]\n"
            f"near = torch.ones(len(start), len(start), dtype=torch.bool).triu().tril({_LONGEST - 1})\n"
            "near[0] = False\n"
            "each = (start.unsqueeze(1) + end).masked_fill(~near, -torch.inf)\n"
            "best = int(each.argmax())\n"
            "first, last = best // len(start), best % len(start)\n"
            "print(context[spans[first][0] : spans[last][1]] if each[first, last] > nothing else '')"
        )

    def metrics(self, truths: Sequence[list[str]], predictions: Sequence[str]) -> dict[str, float]:
        """Return exact match and F1 of words: over all, and for questions with and without an answer."""
        pairs = list(zip(truths, predictions, strict=True))
        parts = {"": pairs, "/answer": [p for p in pairs if p[0]], "/no answer": [p for p in pairs if not p[0]]}
        rates = {"exact match": is_exact, "f1": overlap}
        return {
            f"{name}{part}": sum(rate(*pair) for pair in own) / len(own)
            for part, own in parts.items()
            if own and len(own) < len(pairs) + (part == "")
            for name, rate in rates.items()
        }

    def rightness(self, truth: list[str], prediction: str) -> float:
        """Return F1 of the words of one answer."""
        return overlap(truth, prediction)


def _window(encoded: Any, number: int, answer: tuple[str, int] | None) -> Example:
    """Return one window of a context as an example without its weight."""
    spans, sources = encoded["offset_mapping"][number], encoded.sequence_ids(number)
    part = [_PLACE if source == 1 else _QUESTION if source == 0 else 0 for source in sources]
    part[0] = _PLACE  # "[CLS]", or whatever token is the first, stands for no answer
    own = [place for place, source in enumerate(sources) if source == 1]
    inside = _inside(answer, {place: spans[place] for place in own}) if answer and own else [0]
    types = encoded["token_type_ids"][number] if "token_type_ids" in encoded else None
    return {
        "input_ids": list(encoded["input_ids"][number]),
        **({} if types is None else {"token_type_ids": list(types)}),
        "part": part,
        "starts": [int(place == inside[0]) for place in range(len(part))],
        "ends": [int(place == inside[-1]) for place in range(len(part))],
        "first": [start for start, _ in spans],
        "behind": [end for _, end in spans],
    }


def _inside(answer: tuple[str, int], spans: dict[int, tuple[int, int]]) -> list[int]:
    """Return the places of an answer's tokens in a window; the first place of all if the window lacks any of them."""
    text, start = answer
    first, last = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
    low, high = min(start for start, _ in spans.values()), max(end for _, end in spans.values())
    inside = [place for place, (start, end) in spans.items() if first < end and start < last]
    return inside if inside and low <= first and last <= high else [0]
