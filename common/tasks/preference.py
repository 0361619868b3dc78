"""Preference tuning: of two answers to a prompt, people chose one (DPO: Rafailov and others, arXiv 2305.18290).

A pair's loss compares the adapter with a reference, which is the same model with start values from the public seed. It
depends on no other pair, so each loss is of its own pair and the weights, and one pair stays one unit.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.forms.entities import plain
from confide.common.forms.texts import made_up_words
from confide.common.generation import IGNORED
from confide.common.tasks.causal_lm import CausalLM
from confide.common.tasks.task import Example, Record, Task
from confide.common.tasks.written import why_nothing_to_write

if TYPE_CHECKING:
    from torch import Tensor, nn

_SIDES = ("chosen", "rejected")


class Preference(Task):
    """Settings of `[task]` for kind "preference", and the task itself.

    A record has a ``prompt``, the ``chosen`` answer and the ``rejected`` one: texts, or lists of messages, as trl takes
    them. The pair is one example, and so one unit. The reference is the same model with the adapter's start values, so
    no second model is in memory: the base without its adapter, or under prompts and prefixes with the drawn ones.

    Attributes:
        beta: how strongly the model is held to the reference (equation 7 of the paper).
    """

    headline: ClassVar[str] = "preferred"
    pipeline_tag: ClassVar[str] = "text-generation"
    kind: Literal["preference"]
    max_length: int = Field(512, ge=8, le=32768)
    beta: float = Field(0.1, gt=0.0, le=10.0)

    @property
    def _writer(self) -> CausalLM:
        """The kind that reads a prompt with one answer."""
        return CausalLM(kind="causal-lm", form="completion", max_length=self.max_length)

    @property
    def own_head(self) -> bool:
        """False: no head is trained."""
        return False

    @property
    def num_outputs(self) -> int:
        """No output of ours."""
        return 0

    @property
    def num_texts(self) -> int:
        """Two: the prompt with each of its answers."""
        return 2

    def texts(self, batch: "Mapping[str, Tensor]") -> "list[Mapping[str, Tensor]]":
        """Return the batch, and the batch with the rejected answer in place of the chosen one."""
        swapped = {"input_ids": "rejected_ids", "attention_mask": "rejected_mask", "target": "rejected_target"}
        return [batch, {**batch, **{name: batch[other] for name, other in swapped.items()}}]

    def peft_type(self) -> str | None:
        """Return PEFT's name of the task."""
        return self._writer.peft_type()

    def untrained_parts(self) -> frozenset[str]:
        """Return the head's name: its logits are computed apart."""
        return self._writer.untrained_parts()

    def auto_class(self) -> Any:
        """Return the transformers class of the base model."""
        return self._writer.auto_class()

    def base_wanted(self) -> str:
        """Return the sort of base that the kind needs."""
        return self._writer.base_wanted()

    def inputs(self) -> tuple[str, ...]:
        """Return all columns: a prediction says which answer the model prefers."""
        return ("prompt", *_SIDES)

    def answers(self) -> tuple[str, ...]:
        """Return no column: that the first answer is the better one stands in the columns' names."""
        return ()

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        for side in _SIDES:
            problem = self._writer.check(_with(record, side))
            if problem:
                return problem.replace("completion", side)
        if plain(record["chosen"]) == plain(record["rejected"]):
            return "chosen and rejected are the same; remove the record"
        return None

    def cut(self, record: dict[str, Any], max_chars: int) -> dict[str, Any]:
        """Return a record with its texts cut, those of messages too."""
        short = dict(record)
        for side in _SIDES:
            own = self._writer.cut(_with(record, side), max_chars)
            short |= {"prompt": own["prompt"], side: own["completion"]}
        return short

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a made-up prompt of one word and two answers of so many."""
        count = words or self.max_length
        texts = (" ".join(made_up_words(seed, 2 * number + side, count)) for side in range(2))
        return {"prompt": "0 ", **dict(zip(_SIDES, texts, strict=True))}

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return one example: tokens and targets of both texts, each from the window in which its answer begins.

        There is none where one of them has no token to write.
        """
        found = [self._writer.examples(_with(record, side), tokenizer) for side in _SIDES]
        if not all(found):
            return []
        chosen, rejected = (windows[0] for windows in found)
        return [
            {
                **chosen,
                "rejected_ids": rejected["input_ids"],
                "rejected_target": rejected["target"],
                "rejected_mask": [1] * len(rejected["input_ids"]),
            }
        ]

    def why_no_example(self, record: Record, tokenizer: Any) -> str | None:
        """Return why a checked pair gives the model nothing to compare; None if it gives something."""
        return why_nothing_to_write(self, record, tokenizer)

    def columns(self) -> Mapping[str, int]:
        """Return the columns of both texts beside the first one's tokens; padding is masked."""
        return {"target": IGNORED, "rejected_ids": 0, "rejected_target": IGNORED, "rejected_mask": 0}

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train."""
        return self._writer.build(adapted, hidden_size)

    def base_problem(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> str | None:
        """Return why the base cannot learn to write; None if it can."""
        return self._writer.base_problem(module, batch)

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return DPO's loss of each pair, shape ``(B,)`` (equation 7)."""
        import torch

        own: Any = getattr(module, "_module", module)  # Opacus' wrapper passes on no methods of what it wraps
        with own.at_start(), torch.no_grad():
            reference = _margins(own, batch)
        x = self.beta * (_margins(own, batch) - reference)
        # As classes of logits 0 and x: a CPU computes a sigmoid in vectors, and the numbers beside them otherwise.
        return -torch.stack([torch.zeros_like(x), x], dim=1).log_softmax(dim=1)[:, 1]

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[float]:
        """Return by how much each chosen answer is likelier than the rejected one: the difference of their logs."""
        own: Any = getattr(module, "_module", module)
        margins: list[float] = _margins(own, batch).nan_to_num(0.0, 0.0, 0.0).tolist()
        return margins

    def join(self, record: Record, outputs: list[float]) -> float:
        """Return the difference; 0 for a record that gives no example."""
        return outputs[0] if outputs else 0.0

    def truth(self, record: Record) -> float:
        """Return 1: the chosen answer is the right one."""
        return 1.0

    def program(self) -> str:
        """Return the program's lines: they read JSON with texts, and print the difference of the answers' logs."""
        return _PROGRAM.format(max_length=self.max_length)

    def metrics(self, truths: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
        """Return the share of pairs whose chosen answer is likelier, and the mean difference of the logs."""
        count = max(1, len(predictions))
        return {
            "preferred": sum(value > 0 for value in predictions) / count,
            "margin": sum(predictions) / count,
        }

    def rightness(self, truth: float, prediction: float) -> float:
        """Return 1 where the chosen answer is likelier."""
        return float(prediction > 0)


def _with(record: Record, side: str) -> dict[str, Any]:
    """Return a prompt with one of its answers."""
    return {"prompt": record["prompt"], "completion": record[side]}


def _margins(module: Any, batch: "Mapping[str, Tensor]") -> "Tensor":
    """Return the log-probability of each chosen answer less that of the rejected one, shape ``(B,)``."""
    chosen, _ = module.answer_losses(batch["input_ids"], batch["attention_mask"], batch["target"])
    rejected, _ = module.answer_losses(batch["rejected_ids"], batch["rejected_mask"], batch["rejected_target"])
    margins: Tensor = rejected - chosen  # of losses, so the signs turn
    return margins


_PROGRAM = """import json

record, logs = json.loads(text), []
for side in ("chosen", "rejected"):
    prompt, answer = record["prompt"], record[side]
    if isinstance(prompt, str):
        begin, whole = prompt, prompt + answer
    else:
        begin = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(prompt + answer, tokenize=False)
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids, ours = encoded["input_ids"], [end > len(begin) for _, end in encoded["offset_mapping"]]
    if isinstance(prompt, str):
        first = tokenizer("a")["input_ids"][:1]
        first = first if first == [tokenizer.bos_token_id] else []
        last = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        ids, ours = first + ids + last, [False] * len(first) + ours + [True] * len(last)
    start = ours.index(True) // {max_length} * {max_length}  # the window in which the answer begins
    ids, ours = torch.tensor([ids[start :][:{max_length}]]), torch.tensor(ours[start + 1 :][: {max_length} - 1])
    with torch.inference_mode():
        each = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1].log_softmax(1)
    logs.append(float(each[torch.arange(len(ours)), ids[0, 1:]][ours].sum()))
print(json.dumps(logs[0] - logs[1]))"""
