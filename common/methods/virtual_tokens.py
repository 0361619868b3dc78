"""Virtual tokens before every text: in its embeddings (prompts), or in the keys and values of each layer (prefixes).

The base's own forward pass is wrapped by hooks, so that heads, losses and generation see the text's places alone. PEFT
repeats one row of its prompt instead, and then no row has a gradient of its own.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from confide.common.errors import InputError
from confide.common.methods.blocks import Block
from confide.common.methods.inserted import Extended
from confide.common.privacy.layers import VirtualTokens
from confide.common.tasks.task import Task

Named = dict[str, Any]


class Prompt(nn.Module):
    """The embeddings of virtual tokens, in units of the base's usual embedding: V of them, of D numbers.

    With a block between the trained vectors and the embeddings it is P-tuning's.
    """

    usual: Tensor

    def __init__(self, embed: nn.Module, count: int, size: int, block: Block | None = None) -> None:
        super().__init__()
        self.tokens, self.block = VirtualTokens(count, size), block
        place = next(embed.parameters()).device
        with torch.no_grad():
            some = embed(torch.arange(min(1000, len(embed.weight)), device=place)).float()  # type: ignore[arg-type]
        self.register_buffer("usual", some.square().mean().sqrt(), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return embeddings of shape ``(B, V, D)`` for a tensor of B rows."""
        vectors: Tensor = self.tokens(rows)
        return (vectors if self.block is None else self.block(vectors)) * self.usual

    def values(self) -> Tensor:
        """Return the embeddings, shape ``(V, D)``."""
        with torch.no_grad():
            embeddings: Tensor = self(self.tokens.vectors.new_zeros(1, 1))
        return embeddings[0]


class Prompted(Extended):
    """A base that reads virtual tokens before each text."""

    def __init__(self, base: Any, marker: str, prompt: Prompt) -> None:
        super().__init__(base)
        self.add_module(marker, prompt)
        self._prompt, self._count = [prompt], len(prompt.tokens.vectors)  # in a list: once in the names is enough
        base.base_model.register_forward_pre_hook(self._prepend, with_kwargs=True)
        base.base_model.register_forward_hook(self._cut, with_kwargs=True)

    @property
    def prompt(self) -> Prompt:
        """The virtual tokens."""
        return self._prompt[0]

    def _prepend(self, trunk: Any, given: tuple[Any, ...], named: Named) -> tuple[tuple[Any, ...], Named]:
        named, ids = _with_ids(given, named)
        begun = _length(named.get("past_key_values"))
        named = {**_longer(named, ids, self._count, begun=begun, inside=True), "input_ids": ids}
        if not begun:
            embedded = trunk.get_input_embeddings()(ids)
            named["inputs_embeds"] = torch.cat([self.prompt(ids).to(embedded.dtype), embedded], dim=1)
            named["input_ids"] = None
        return (), named

    def _cut(self, trunk: Any, given: tuple[Any, ...], named: Named, output: Any) -> Any:
        if named.get("inputs_embeds") is not None:
            output.last_hidden_state = output.last_hidden_state[:, self._count :]
        return output


class Prefixed(Extended):
    """A base whose layers attend to V virtual keys and values before those of each text."""

    def __init__(self, base: Any, marker: str, count: int) -> None:
        super().__init__(base)
        config = base.config.get_text_config()
        self._layers = config.num_hidden_layers
        self._heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        tokens = VirtualTokens(count, self._layers * 2 * self._heads * self._size)
        self.add_module(marker, tokens)
        self._tokens = [tokens]
        base.base_model.register_forward_pre_hook(self._prepend, with_kwargs=True)
        base.base_model.register_forward_hook(_forget, with_kwargs=True)

    @property
    def tokens(self) -> VirtualTokens:
        """The virtual keys and values."""
        return self._tokens[0]

    def _prepend(self, trunk: Any, given: tuple[Any, ...], named: Named) -> tuple[tuple[Any, ...], Named]:
        named, ids = _with_ids(given, named)
        cache = named.get("past_key_values")
        count, begun = len(self.tokens.vectors), _length(cache)
        named = _longer(named, ids, count, begun=begun, inside=False)
        if not begun:
            cache = DynamicCache() if cache is None else cache
            vectors = self.tokens(ids).to(next(trunk.parameters()).dtype)
            parts = vectors.view(len(ids), count, 2 * self._layers, self._heads, self._size).permute(2, 0, 3, 1, 4)
            for layer in range(self._layers):
                cache.update(parts[2 * layer], parts[2 * layer + 1], layer)
            named["past_key_values"] = cache
        return (), {**named, "input_ids": ids}


def _forget(trunk: Any, given: tuple[Any, ...], named: Named, output: Any) -> Any:
    """Take the cache out of an output whose caller wanted none; transformers would go on with it."""
    if named.get("use_cache") is False:
        output.past_key_values = None
    return output


def require_prompts(base: Any, task: Task, method: str) -> None:
    """`InputError` where virtual tokens would not do what a reader expects."""
    if base.config.is_encoder_decoder:
        raise InputError(
            f"adapter.method = {method!r}: models of type {base.config.model_type!r} read a source and write a target, "
            "and virtual tokens before both are not built; use method = 'lora'"
        )
    if task.native_head:
        raise InputError(
            f"adapter.method = {method!r}: the base's own head reads the first or last place, which a virtual token "
            f"may take; use {task.head_setting()}"
        )


def _with_ids(given: tuple[Any, ...], named: Named) -> tuple[Named, Tensor]:
    """Return the named inputs of a forward pass without the token ids, and the token ids."""
    named = dict(named)
    ids = named.pop("input_ids", None)
    return named, given[0] if ids is None else ids


def _length(cache: Any) -> int:
    return 0 if cache is None else int(cache.get_seq_length())


def _longer(named: Named, ids: Tensor, count: int, *, begun: int, inside: bool) -> Named:
    """Return inputs with places for virtual tokens: in the mask always, and in positions where they are given.

    Token types go: PEFT drops them, and a reader's model must predict as ours does.

    Args:
        named: inputs of a forward pass.
        ids: of the text, ``(B, T)``.
        count: of virtual tokens.
        begun: the number of places in the cache; the virtual tokens are among them, unless it is 0.
        inside: they go through the layers themselves, and so have positions among those that are given.
    """
    named.pop("token_type_ids", None)
    mask = named.get("attention_mask")
    if mask is None:  # transformers drops a mask of ones when it generates
        mask = ids.new_ones(len(ids), max(0, begun - count) + ids.shape[1])
    named["attention_mask"] = torch.cat([mask.new_ones(len(ids), count), mask], dim=1)
    if (positions := named.get("position_ids")) is not None:
        first = torch.arange(count, device=ids.device).expand(len(positions), -1)
        parts = [first] if inside and not begun else []
        named["position_ids"] = torch.cat([*parts, positions + count], dim=1)
    return named
