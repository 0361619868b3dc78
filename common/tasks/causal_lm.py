"""Causal language modelling: texts, instructions with their answers, conversations."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.forms.conversations import (
    COLUMNS,
    READ_PROMPT,
    READ_TEXT,
    Form,
    Rendered,
    opening,
    problem_of,
    prompt_of,
    reference_of,
    rendered,
    shortened,
)
from confide.common.forms.entities import plain
from confide.common.forms.texts import made_up_words
from confide.common.forms.windows import require_fast
from confide.common.generation import IGNORED
from confide.common.tasks.task import Example, Record, Task
from confide.common.tasks.written import Written

if TYPE_CHECKING:
    from torch import nn


class CausalLM(Written, Task):
    """Settings of `[task]` for kind "causal-lm", and the task itself.

    With ``form = "messages"`` the model learns the assistant's turns, with "completion" what follows a prompt, with
    "text" everything. Other tokens are read and have no loss.
    """

    headline: ClassVar[str] = "perplexity"
    pipeline_tag: ClassVar[str] = "text-generation"
    kind: Literal["causal-lm"]
    form: Form = "messages"
    max_length: int = Field(512, ge=8, le=32768)
    max_windows: int = Field(1, ge=1, le=64)
    max_new_tokens: int = Field(128, ge=1, le=4096)

    def peft_type(self) -> str | None:
        """Return PEFT's name of the task."""
        return "CAUSAL_LM"

    def untrained_parts(self) -> frozenset[str]:
        """Return the head's name: its logits are computed apart."""
        return frozenset({"lm_head", "embed_out"})

    def auto_class(self) -> Any:
        """Return the transformers class of the base model."""
        import transformers

        return transformers.AutoModelForCausalLM

    def base_wanted(self) -> str:
        """Return the sort of base that the kind needs."""
        return "a model that writes, such as GPT-2, Llama or Qwen"

    def inputs(self) -> tuple[str, ...]:
        """Return the columns that are read: all that a person wrote."""
        return COLUMNS[self.form][:1]

    def answers(self) -> tuple[str, ...]:
        """Return the column of the completion."""
        return COLUMNS[self.form][1:]

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        return problem_of(record, self.form)

    def cut(self, record: dict[str, Any], max_chars: int) -> dict[str, Any]:
        """Return a record with its texts cut, those of messages too."""
        return {
            **record,
            **{name: shortened(record[name], max_chars) for name in self.fields() if name in record},
        }

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a made-up record whose answer has so many words, after a question of one word."""
        text = " ".join(made_up_words(seed, number, words or self.max_length * self.max_windows))
        if self.form == "text":
            return {"text": text}
        if self.form == "completion":
            return {"prompt": "0 ", "completion": text}
        return {"messages": [{"role": "user", "content": "0"}, {"role": "assistant", "content": text}]}

    def from_text(self, text: str) -> dict[str, Any]:
        """Return a text as what the model answers or goes on from."""
        name = self.inputs()[0]
        return {name: [{"role": "user", "content": text}] if self.form == "messages" else text}

    def from_line(self, line: str) -> dict[str, Any]:
        """Return a line as what the model answers or goes on from; as JSON it may hold line breaks, or messages."""
        given = prompt_of(line, self.form)
        return self.from_text(given) if isinstance(given, str) else dict(self.asked({self.inputs()[0]: given}))

    def asked(self, record: Record) -> Record:
        """Return a conversation that ends with the user's turn with an empty one of the assistant's behind it.

        The model writes the assistant's last turn, which would else be an earlier one.
        """
        turns = plain(record["messages"]) if self.form == "messages" else None
        if not isinstance(turns, list) or not turns:
            return record
        last = turns[-1]
        if not isinstance(last, dict) or last.get("role") != "user":
            return record
        return {**record, "messages": [*turns, {"role": "assistant", "content": ""}]}

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return windows with a token to write: token ids, and beside each its target (`IGNORED`: none)."""
        whole = rendered(record, self.form, tokenizer)
        ids, offsets = _encoded(whole, tokenizer)
        last = whole.answers[-1][1] if whole.answers else -1
        target = [
            token if any(end > first and start < until for first, until in whole.answers) else IGNORED
            for token, (start, end) in zip(ids, offsets, strict=True)
        ]
        if not whole.by_template:
            begin, stop = _begin(tokenizer), [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
            ids = [*begin, *ids, *stop]
            target = [IGNORED] * len(begin) + target + (stop if last == len(whole.text) else [IGNORED] * len(stop))
        starts = range(0, len(ids), self.max_length)
        windows = [(ids[start : start + self.max_length], target[start : start + self.max_length]) for start in starts]
        kept = [(own, wanted) for own, wanted in windows if any(token != IGNORED for token in wanted[1:])]
        return [{"input_ids": own, "target": wanted} for own, wanted in kept[: self.max_windows]]

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train."""
        from confide.common.generation.language_model import LanguageModel

        return LanguageModel(adapted)

    def prompt(self, record: Record, tokenizer: Any) -> list[int]:
        """Return the last tokens before the text to write, at most ``max_length``."""
        whole = opening(record, self.form, tokenizer)
        ids, _ = _encoded(whole, tokenizer)
        return ([] if whole.by_template else _begin(tokenizer)) + ids[-self.max_length :]

    def reference(self, record: Record) -> str:
        """Return the record's own text where the model writes; "" without."""
        return reference_of(record, self.form)

    def program(self) -> str:
        """Return the program's lines: they print what the model writes, as JSON so that it stays on one line."""
        template = "text = tokenizer.apply_chat_template({}, tokenize=False, add_generation_prompt=True)\n"
        rendered = {
            "messages": "turns = text if messages else [{'role': 'user', 'content': text}]\n"
            + template.format("turns"),
            "completion": "if messages:\n    " + template.format("text"),
            "text": "",
        }
        bare = "" if self.form == "text" else "not messages and "
        begin = (
            f"if {bare}tokenizer('a')['input_ids'][:1] == [tokenizer.bos_token_id]:\n"
            "    ids = [tokenizer.bos_token_id, *ids]\n"
        )
        return (
            f"{READ_TEXT if self.form == 'text' else READ_PROMPT}{rendered[self.form]}"
            f"ids = tokenizer(text, add_special_tokens=False)['input_ids'][-{self.max_length}:]\n"
            f"{'' if self.form == 'messages' else begin}ids = torch.tensor([ids])\n"
            "with torch.inference_mode():\n"
            f"    written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, "
            f"max_new_tokens={self.max_new_tokens})\n"
            "print(json.dumps(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip()))"
        )

    def truth(self, record: Record) -> str:
        """Return the record's own text where the model writes."""
        return self.reference(record)


def _encoded(whole: Rendered, tokenizer: Any) -> tuple[list[int], list[tuple[int, int]]]:
    """Return token ids without special ones, and start and end of each token in the text."""
    require_fast(tokenizer, "causal-lm")
    encoded = tokenizer(whole.text, add_special_tokens=False, return_offsets_mapping=True)
    return list(encoded["input_ids"]), list(encoded["offset_mapping"])


def _begin(tokenizer: Any) -> list[int]:
    """Return the token with which this tokenizer begins each text, if it has one (Llama has, GPT-2 has none)."""
    first = tokenizer("a")["input_ids"][:1]
    return list(first) if first == [tokenizer.bos_token_id] else []
