"""The base of every kind of task: its settings, the methods that it must have, and the defaults that kinds share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from confide.common.errors import InputError
from confide.common.settings import Section

if TYPE_CHECKING:
    from torch import Tensor, nn

Example = dict[str, Any]
Record = Mapping[str, Any]
# Lines of a model card's program: the model's output for a text or for two, and the mean of its states.
OUTPUT = """tokens = tokenizer(text, truncation=True, max_length={max_length}, return_tensors="pt")
ids, mask = tokens["input_ids"], tokens["attention_mask"]
with torch.inference_mode():
    output = model(input_ids=ids, attention_mask=mask)
"""
PAIR_OUTPUT = """import json

record = json.loads(text)
tokens = tokenizer(record["text"], record["text_pair"], truncation=True, max_length={max_length}, return_tensors="pt")
mask = tokens["attention_mask"]
with torch.inference_mode():
    output = model(**tokens)
"""
POOLED = "pooled = (output.last_hidden_state * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)\n"


class Task(Section):
    """A kind of task. Its fields are the `[task]` section of run.toml; all of them are public.

    Attributes:
        headline: the metric that curves show; a higher one is better, but for "perplexity".
        pipeline_tag: the nearest of the kinds that the Hugging Face hub knows, for the model card.
        max_length: the most tokens of an example.
    """

    headline: ClassVar[str]
    pipeline_tag: ClassVar[str] = "text-classification"
    max_length: int = Field(128, ge=8, le=8192)

    # Records

    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Return the columns that a prediction reads."""

    @abstractmethod
    def answers(self) -> tuple[str, ...]:
        """Return the columns that hold the right answer. Two records that differ only in these are of one person."""

    def fields(self) -> tuple[str, ...]:
        """Return all columns of a record."""
        return (*self.inputs(), *self.answers())

    @abstractmethod
    def check(self, record: Record) -> str | None:
        """Return the fault of a record, in words that name value, rule and remedy; None for a good record."""

    def translate(self, record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Return a record with the study's labels for an institution's own codes (``names``: code to label)."""
        return record

    def stratum(self, record: Record) -> str:
        """Return the text by which a simulated partition is skewed; "" if the kind has none."""
        return ""

    def cut(self, record: dict[str, Any], max_chars: int) -> dict[str, Any]:
        """Return a record with its texts cut. Its group stays, or two patients with long names could be one unit."""
        return {
            name: value[:max_chars] if isinstance(value, str) and name != "group" else value
            for name, value in record.items()
        }

    @abstractmethod
    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a made-up record of so many words: the same for the same public numbers.

        By default it has so many that it fills all examples that the task allows, whatever the tokenizer.
        """

    def from_text(self, text: str) -> dict[str, Any]:
        """Return a plain text as a record without an answer, for predictions; `InputError` if it is no input."""
        names = self.inputs()
        if len(names) > 1:
            raise InputError(f"a text alone is no input: give JSON objects with {', '.join(names)}, and --jsonl")
        return {names[0]: text}

    def asked(self, record: Record) -> Record:
        """Return a record as one to answer, for predictions: by default as it is."""
        return record

    def from_line(self, line: str) -> dict[str, Any]:
        """Return a line of a file as such a record; it raises as `from_text` does."""
        return self.from_text(line)

    # Examples

    @abstractmethod
    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return a checked record as one or several examples (windows) of at most ``max_length`` tokens.

        Each has ``input_ids``, a list of int, and the values that `losses` needs: a list with one value for each token,
        or a number. All examples of a record belong to its unit. A record without its answer can be encoded too.
        """

    def why_no_example(self, record: Record, tokenizer: Any) -> str | None:
        """Return why a checked record gives no example to learn from, with a tokenizer; None if it gives one."""
        return None

    def columns(self) -> Mapping[str, int]:
        """Return the columns of examples with one value for each token, besides ``input_ids``, and what pads them."""
        return {}

    # The model

    @property
    def own_head(self) -> bool:
        """True: a head of ours, on the states of a base, is trained. It travels as "head.weight" and "head.bias"."""
        return True

    @property
    def native_head(self) -> bool:
        """True: the base model's own head is trained, as a whole."""
        return False

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """The number of values that the head gives."""

    def head_setting(self) -> str:
        """Return the setting that puts our head on any base, for messages."""
        return "another base"

    def peft_type(self) -> str | None:
        """Return PEFT's name of the task, by which its loaders know the base's class; None with a head of ours."""
        return None

    def untrained_parts(self) -> frozenset[str]:
        """Return parts of a base's names, between dots, that a loss does not pass. Our heads pass no pooler."""
        return frozenset({"pooler"})

    def head_parts(self) -> frozenset[str]:
        """Return parts of a base's names, between dots, that are its own head."""
        return frozenset()

    def auto_class(self) -> Any:
        """Return the transformers class of the base model."""
        import transformers

        return transformers.AutoModel

    def base_wanted(self) -> str:
        """Return the sort of base that the kind needs, for messages."""
        return "an encoder such as BERT, or a decoder such as Llama"

    def auto_settings(self) -> dict[str, Any]:
        """Return settings of the base model's configuration."""
        return {}

    @abstractmethod
    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted base, as ``encoder``, with its head; one of ours is a `TokenHead`."""

    @abstractmethod
    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return one loss per example, shape ``(B,)``; each depends on its own example only."""

    @property
    def likely(self) -> bool:
        """True: a loss is minus the logarithm of the right answer's probability, or a weighted mean of such."""
        return True

    @property
    def num_texts(self) -> int:
        """The number of texts of an example, which pass the base one after the other."""
        return 1

    def texts(self, batch: "Mapping[str, Tensor]") -> "list[Mapping[str, Tensor]]":
        """Return a batch for each of an example's texts, with that text where the first one stands."""
        return [batch]

    @abstractmethod
    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[Any]:
        """Return one output per example."""

    @abstractmethod
    def program(self) -> str:
        """Return the lines of a model card's program that print the answer for a ``text``, a line, on one line.

        They have ``tokenizer``, ``model`` and, with our head, ``head``: its tensors, by name. `OUTPUT` begins them for
        kinds that read the model's states.
        """

    def base_problem(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> str | None:
        """Return why a base cannot serve the task, as two made-up examples show it; None if it can."""
        return None

    # Writing

    def longest_answer(self) -> int:
        """Return the most tokens that the model writes for a record; 0 for a kind that writes no texts."""
        return 0

    def prompt(self, record: Record, tokenizer: Any) -> list[int]:
        """Return the tokens from which the model writes."""
        return []

    def reference(self, record: Record) -> str:
        """Return the text that a good model would write; "" if the record has none."""
        return ""

    # Answers

    def join(self, record: Record, outputs: list[Any]) -> Any:
        """Return the prediction for a record, as JSON holds it, from the outputs of its examples; there may be none."""
        return outputs[0] if outputs else ""

    def shown(self, record: Record, prediction: Any) -> Any:
        """Return a prediction as its user wants it, in the form of the record's answer: by default as it is."""
        return prediction

    @abstractmethod
    def truth(self, record: Record) -> Any:
        """Return the right answer of a record, in the form of a prediction."""

    @abstractmethod
    def metrics(self, truths: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        """Return every metric by its name, ``headline`` among them. A part is named after a slash: "f1/person"."""

    def score(self, truths: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Return the headline alone."""
        return self.metrics(truths, predictions)[self.headline]

    def rightness(self, truth: Any, prediction: Any) -> float:
        """Return how right the prediction for one record is, in [0, 1]. Noised validation counts add this up."""
        return float(truth == prediction)


def model_inputs(batch: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return the columns of a batch that a base model reads."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
