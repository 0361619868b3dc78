"""The methods that the kinds share which learn to write: the loss on an answer's tokens, perplexity, likelihood."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confide.common.errors import InputError
from confide.common.generation.text_metrics import WORST_LOSS, perplexity
from confide.common.tasks.task import Record

if TYPE_CHECKING:
    from torch import Tensor, nn

Loss = list[float]  # the sum of losses over a record's answer tokens, and their number, as JSON holds them


class Written:
    """A kind whose answer is a text. The base's own head turns states into words, and stays as it is."""

    max_new_tokens: int

    @property
    def own_head(self) -> bool:
        """False: no head is trained."""
        return False

    @property
    def num_outputs(self) -> int:
        """No output of ours: the base's head gives one for each word of its vocabulary."""
        return 0

    def why_no_example(self, record: Record, tokenizer: Any) -> str | None:
        """Return why a checked record gives the model nothing to learn; None if it gives something."""
        return why_nothing_to_write(self, record, tokenizer)

    def columns(self) -> Mapping[str, int]:
        """Return the column of the tokens to write; padding is none."""
        from confide.common.generation import IGNORED

        return {"target": IGNORED}

    def base_problem(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> str | None:
        """Return why the base cannot learn to write; None if it can."""
        from confide.common.generation.language_model import head_problem

        return head_problem(module, batch)  # type: ignore[arg-type]  # of `build`

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the mean cross-entropy over each example's own answer tokens, shape ``(B,)``; 0 without any."""
        sums, counts = _answer_losses(module, batch)
        return sums / counts.clamp(min=1)

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[Loss]:
        """Return the sum of losses over each example's answer tokens, and their number."""
        sums, counts = _answer_losses(module, batch)
        return [
            [total if math.isfinite(total) else WORST_LOSS * count, count]
            for total, count in zip(sums.tolist(), counts.tolist(), strict=True)
        ]

    def join(self, record: Record, outputs: list[Loss]) -> Loss:
        """Return the losses of a record from those of its windows."""
        return [sum(total for total, _ in outputs), sum(count for _, count in outputs)]

    def longest_answer(self) -> int:
        """Return the most tokens that the model writes."""
        return self.max_new_tokens

    def metrics(self, truths: Sequence[str], predictions: Sequence[Loss]) -> dict[str, float]:
        """Return the perplexity of all records together: lower is better."""
        return {"perplexity": perplexity([(total, int(count)) for total, count in predictions])}

    def rightness(self, truth: str, prediction: Loss) -> float:
        """Return the geometric mean of the probabilities of a record's answer tokens, in [0, 1]."""
        total, count = prediction
        return math.exp(-total / count) if count else 0.0


def why_nothing_to_write(task: Any, record: Record, tokenizer: Any) -> str | None:
    """Return why a record of a kind that writes gives no example: the template refuses it, or renders no answer."""
    try:
        if task.examples(record, tokenizer):
            return None
    except InputError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - of a template or a tokenizer: programs of the base's makers
        return f"the base's tokenizer fails on it ({type(error).__name__}); change it, or remove the record"
    return "its answer has no token to write; change it, or remove the record"


def _answer_losses(module: Any, batch: "Mapping[str, Tensor]") -> "tuple[Tensor, Tensor]":
    names = ("input_ids", "attention_mask", "target")
    own = getattr(module, "_module", module)  # Opacus' wrapper passes on no methods of what it wraps
    losses: tuple[Tensor, Tensor] = own.answer_losses(*(batch[name] for name in names))
    return losses
