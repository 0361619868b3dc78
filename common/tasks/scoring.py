"""Scoring: one number for each text, for ratings and recommendations."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from confide.common.forms.labels import number_of
from confide.common.forms.texts import made_up_texts, texts_problem
from confide.common.forms.windows import first_tokens
from confide.common.tasks.task import OUTPUT, PAIR_OUTPUT, POOLED, Example, Record, Task, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn


class Scoring(Task):
    """Settings of `[task]` for kind "scoring", and the task itself.

    The range of a score is public: it comes from here, never from the scores that occur in private data.
    """

    headline: ClassVar[str] = "pearson"
    kind: Literal["scoring"]
    lowest: float = Field(0.0, ge=-1e6, le=1e6)
    highest: float = Field(1.0, ge=-1e6, le=1e6)
    # Left out of a locked run where it is false: older runs, which do not name it, keep their hash.
    pair: bool = Field(default=False, exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _ordered(self) -> "Scoring":
        if not self.lowest < self.highest:
            raise ValueError(f"task.lowest = {self.lowest:g} must be below task.highest = {self.highest:g}")
        return self

    @property
    def num_outputs(self) -> int:
        """One score."""
        return 1

    def inputs(self) -> tuple[str, ...]:
        """Return the text's column, or those of two texts."""
        return ("text", "text_pair") if self.pair else ("text",)

    def answers(self) -> tuple[str, ...]:
        """Return the score's column."""
        return ("score",)

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        if problem := texts_problem(record, self.inputs()):
            return problem
        score = number_of(record["score"])
        if score is None or not self.lowest <= score <= self.highest:
            return (
                f"score {record['score']!r:.60} is no number from {self.lowest:g} to {self.highest:g}; mend it or "
                "change task.lowest and task.highest"
            )
        return None

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a made-up text and a score within the range."""
        share = number % 5 / 4
        texts = made_up_texts(self.inputs(), seed, number, words or self.max_length)
        return {**texts, "score": self.lowest + share * (self.highest - self.lowest)}

    def truth(self, record: Record) -> float:
        """Return the score of a record."""
        return float(number_of(record["score"]) or 0.0)

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return token ids (cut to ``max_length``) and the score as a share of the range (0 without a score)."""
        tokens = first_tokens([record[name] for name in self.inputs()], tokenizer, self.max_length)
        score = number_of(record.get("score"))
        return [{**tokens, "share": 0.0 if score is None else self._share(score)}]

    def _share(self, score: float) -> float:
        return (score - self.lowest) / (self.highest - self.lowest)

    def columns(self) -> Mapping[str, int]:
        """Return the column of two texts that says to which of them each token belongs."""
        return {"token_type_ids": 0} if self.pair else {}

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with mean pooling and a linear head."""
        from confide.common.tasks.heads import FOR_SHARES, MeanPooledHead

        return MeanPooledHead(adapted, hidden_size, self.num_outputs, FOR_SHARES)

    def shares(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return each example's share of the range, shape ``(B,)``; the middle is added, for a head starts near 0."""
        output: Tensor = module(**model_inputs(batch))
        return output.squeeze(1) + 0.5

    @property
    def likely(self) -> bool:
        """Return False: a loss is a squared error."""
        return False

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the squared error of each example, in shares of the range, shape ``(B,)``."""
        error = self.shares(module, batch) - batch["share"]
        return error * error  # `square` is a power: a CPU computes it in vectors, and a number beside them otherwise

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[float]:
        """Return the score of each example, within the range."""
        shares = self.shares(module, batch).clamp(0.0, 1.0).nan_to_num(0.5).tolist()
        return [self.lowest + share * (self.highest - self.lowest) for share in shares]

    def join(self, record: Record, outputs: list[float]) -> float:
        """Return the score of a record; the middle of the range for a text without any token."""
        return outputs[0] if outputs else (self.lowest + self.highest) / 2

    def program(self) -> str:
        """Return the program's lines: they print the score."""
        return (
            (PAIR_OUTPUT if self.pair else OUTPUT).format(max_length=self.max_length)
            + POOLED
            + "share = float((pooled @ head['weight'].T + head['bias'])[0, 0]) + 0.5\n"
            f"print({self.lowest!r} + min(max(share, 0.0), 1.0) * {self.highest - self.lowest!r})"
        )

    def metrics(self, truths: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
        """Return Pearson's and Spearman's correlation (0 where all scores are one) and the mean absolute error."""
        from scipy import stats

        error = sum(abs(truth - found) for truth, found in zip(truths, predictions, strict=True)) / len(truths)
        if len(set(truths)) < 2 or len(set(predictions)) < 2:
            return {"pearson": 0.0, "spearman": 0.0, "mean absolute error": error}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scores that are nearly one
            pearson, spearman = stats.pearsonr(truths, predictions), stats.spearmanr(truths, predictions)
        return {
            "pearson": float(pearson.statistic),
            "spearman": float(spearman.statistic),
            "mean absolute error": error,
        }

    def rightness(self, truth: float, prediction: float) -> float:
        """Return 1 less the error as a share of the range."""
        return 1.0 - abs(self._share(truth) - self._share(prediction))
