"""Sequence to sequence: translations, summaries, whatever an encoder and a decoder turn one text into."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.forms.conversations import READ_TEXT, prompt_of
from confide.common.forms.texts import made_up_texts, texts_problem
from confide.common.generation import IGNORED
from confide.common.tasks.task import Example, Record, Task
from confide.common.tasks.written import Written

if TYPE_CHECKING:
    from torch import nn


class Seq2Seq(Written, Task):
    """Settings of `[task]` for kind "seq2seq", and the task itself.

    Source and target are cut to ``max_length`` tokens each, and padded to one length. ``instruction`` stands before
    each source: T5 was trained with "translate English to German: ".
    """

    headline: ClassVar[str] = "perplexity"
    pipeline_tag: ClassVar[str] = "text-generation"  # the hub gave up its own tag of encoder-decoders
    kind: Literal["seq2seq"]
    instruction: str = Field("", max_length=1000)
    max_new_tokens: int = Field(128, ge=1, le=4096)

    def peft_type(self) -> str | None:
        """Return PEFT's name of the task."""
        return "SEQ_2_SEQ_LM"

    def untrained_parts(self) -> frozenset[str]:
        """Return the head's name: its logits are computed apart."""
        return frozenset({"lm_head"})

    def auto_class(self) -> Any:
        """Return the transformers class of the base model."""
        import transformers

        return transformers.AutoModelForSeq2SeqLM

    def base_wanted(self) -> str:
        """Return the sort of base that the kind needs."""
        return "an encoder-decoder, such as T5, BART or Marian"

    def inputs(self) -> tuple[str, ...]:
        """Return the source's column."""
        return ("source",)

    def answers(self) -> tuple[str, ...]:
        """Return the target's column."""
        return ("target",)

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        return texts_problem(record, ("source", "target"))

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a made-up source and target of so many words each."""
        return dict(made_up_texts(("source", "target"), seed, number, words or self.max_length))

    def from_line(self, line: str) -> dict[str, Any]:
        """Return a line as a source; as a JSON string it may hold line breaks."""
        return {"source": prompt_of(line, "text")}

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return token ids of source and target; a record without a target has one that is ignored."""
        target = record.get("target")
        wanted = self._ids(tokenizer, text_target=target) if isinstance(target, str) else [IGNORED]
        return [{"input_ids": self.prompt(record, tokenizer), "target": wanted}]

    def prompt(self, record: Record, tokenizer: Any) -> list[int]:
        """Return the token ids of the source."""
        return self._ids(tokenizer, text=self.instruction + record["source"])

    def _ids(self, tokenizer: Any, text: str | None = None, text_target: str | None = None) -> list[int]:
        # A target has a vocabulary of its own in some families (Marian).
        encoded = tokenizer(text=text, text_target=text_target, truncation=True, max_length=self.max_length)
        return list(encoded["input_ids"])

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train."""
        from confide.common.generation.language_model import EncoderDecoder

        return EncoderDecoder(adapted)

    def reference(self, record: Record) -> str:
        """Return the target."""
        return str(record.get("target") or "").strip()

    def program(self) -> str:
        """Return the program's lines: they print what the model writes, as JSON so that it stays on one line."""
        return (
            f"{READ_TEXT}tokens = tokenizer({self.instruction!r} + text, truncation=True, "
            f"max_length={self.max_length}, return_tensors='pt')\n"
            "ids, mask = tokens['input_ids'], tokens['attention_mask']\n"
            "with torch.inference_mode():\n"
            "    written = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, num_beams=1, "
            f"max_new_tokens={self.max_new_tokens})\n"
            "print(json.dumps(tokenizer.decode(written[0], skip_special_tokens=True).strip()))"
        )

    def truth(self, record: Record) -> str:
        """Return the target."""
        return self.reference(record)
