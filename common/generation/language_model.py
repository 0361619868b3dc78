"""A base that writes, as the module to train: states of tokens, and the frozen head that turns them into logits."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from confide.common.generation import IGNORED
from confide.common.generation.answer_loss import answer_losses

_TOKENS = 64  # of a text, whose logits are compared


class LanguageModel(nn.Module):
    """A decoder (GPT-2, Llama) with an adapter. Its states are kept apart from its head, which only answers need."""

    def __init__(self, adapted: nn.Module) -> None:
        super().__init__()
        self.encoder = adapted
        self._start: dict[str, Tensor] = {}

    @property
    def base(self) -> Any:
        """The base model with the adapter in its layers."""
        encoder: Any = self.encoder
        return encoder.get_base_model()

    def keep_start(self) -> None:
        """Keep the trained parameters as they are: those of the reference that `at_start` is."""
        self._start = {name: value.data.clone() for name, value in self.named_parameters() if value.requires_grad}

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """Let the module have the parameters of `keep_start` within the block."""
        parameters = dict(self.named_parameters())
        now = {name: parameters[name].data for name in self._start}
        try:
            for name, start in self._start.items():
                parameters[name].data = start
            yield
        finally:
            for name, value in now.items():
                parameters[name].data = value

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the last hidden states, shape ``(B, T, hidden)``."""
        states: Tensor = self.base.base_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits of states, as the base's own forward pass computes them from there on."""
        config = self.base.config.get_text_config()
        if getattr(config, "scale_decoder_outputs", False):  # T5 with one table for words in and out
            states = states * config.d_model**-0.5
        logits: Tensor = self.base.get_output_embeddings()(states)
        if (bias := getattr(self.base, "final_logits_bias", None)) is not None:  # BART, Marian
            logits = logits + bias
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
            logits = torch.tanh(logits / cap) * cap
        # Cohere multiplies, Granite divides.
        return logits * getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)

    def looks_ahead(self, input_ids: Tensor, attention_mask: Tensor) -> bool:
        """Return whether a text's last token changes the states of those before it."""
        other = torch.cat([input_ids[:, :-1], input_ids[:, :1]], dim=1)
        with torch.no_grad():
            states, changed = (self(ids, attention_mask)[:, :-1] for ids in (input_ids, other))
        rounding = 16 * torch.finfo(states.dtype).eps * float(states.abs().max())  # experts may round in another way
        return not torch.allclose(states, changed, rtol=0, atol=rounding)

    def answer_losses(self, input_ids: Tensor, attention_mask: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of losses over each row's answer tokens, and their number; ``target`` stands beside them."""
        states = self(input_ids, attention_mask)
        return answer_losses(states[:, :-1], target[:, 1:], self.logits)

    def filled(self, prompt: list[int], value: int, length: int) -> list[int]:
        """Return a prompt filled up to a length: on the left, for the model goes on from the last token."""
        return [value] * (length - len(prompt)) + prompt

    def new_tokens(self, written: Tensor, length: int) -> Tensor:
        """Return the tokens that the model added to prompts of this length."""
        return written[:, length:]

    def own_logits(self, input_ids: Tensor, attention_mask: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits that our head gives for every token, and those of the base's own forward pass."""
        whole = self.base(input_ids=input_ids, attention_mask=attention_mask)
        return self.logits(self(input_ids, attention_mask)), whole.logits


class EncoderDecoder(LanguageModel):
    """An encoder and a decoder (T5, BART, Marian) with an adapter."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, written: Tensor) -> Tensor:  # type: ignore[override]
        """Return the decoder's last hidden states after the tokens that are written already, ``(B, T, hidden)``."""
        source = self.base.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        decoded = self.base.get_decoder()(
            input_ids=written, encoder_hidden_states=source, encoder_attention_mask=attention_mask
        )
        states: Tensor = decoded.last_hidden_state
        return states

    def looks_ahead(self, input_ids: Tensor, attention_mask: Tensor) -> bool:
        """Return False: a source is read as a whole, and transformers loads no other decoders beside it."""
        return False

    def answer_losses(self, input_ids: Tensor, attention_mask: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of losses over each row's target, and its number of tokens."""
        return answer_losses(self(input_ids, attention_mask, self._written(target)), target, self.logits)

    def filled(self, prompt: list[int], value: int, length: int) -> list[int]:
        """Return a source filled up to a length: on the right, as in training."""
        return prompt + [value] * (length - len(prompt))

    def new_tokens(self, written: Tensor, length: int) -> Tensor:
        """Return what the decoder wrote."""
        return written

    def own_logits(self, input_ids: Tensor, attention_mask: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits that our head gives for every token, and those of the base's own forward pass."""
        written = self._written(target)
        whole = self.base(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=written)
        return self.logits(self(input_ids, attention_mask, written)), whole.logits

    def _written(self, target: Tensor) -> Tensor:
        """Return a target as the decoder reads it: after the start token, each token one place later."""
        start = torch.full_like(target[:, :1], self.base.config.decoder_start_token_id)
        return torch.cat([start, target[:, :-1]], dim=1).masked_fill(
            torch.cat([torch.zeros_like(start), target[:, :-1]], dim=1) == IGNORED, self.base.config.pad_token_id
        )


def head_problem(module: LanguageModel, batch: Mapping[str, Tensor]) -> str | None:
    """Return why a base cannot learn to write; None if it can.

    A family may do more with its logits than `LanguageModel.logits` knows. Then the loss would be another one. And
    transformers loads BERT as a language model, too. The first tokens show it: logits of two texts of 2,048 tokens,
    computed twice and compared, took 6 GB.
    """
    batch = {name: values[:, :_TOKENS] for name, values in batch.items()}
    with torch.no_grad():
        ours, whole = module.own_logits(batch["input_ids"], batch["attention_mask"], batch["target"])
    if module.looks_ahead(batch["input_ids"], batch["attention_mask"]):
        return "its tokens see those that come after them, so that it cannot learn to write; use a base that writes"
    if torch.allclose(ours.float(), whole.float(), rtol=1e-2, atol=1e-2 * float(whole.abs().max())):
        return None
    return "it does something to its logits that Confide does not know; use a base of another family (docs/models.md)"
