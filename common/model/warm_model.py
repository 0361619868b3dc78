"""One base model with its adapter, loaded once and shared by all rounds and all simulated institutions."""

import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from opacus import GradSampleModule
from torch import nn

from confide.common.config.run import RunConfig
from confide.common.config.simulation import AUTO, SpeedSection
from confide.common.data.batches import Batch, Example, collate, length, padded_length, shortened
from confide.common.data.shapes import Shapes
from confide.common.errors import InputError
from confide.common.model.adapter import build_module
from confide.common.model.adversarial import adversarial_losses, require_adversarial
from confide.common.model.base_models import find_model, hash_model, load_tokenizer, loading
from confide.common.model.devices import choose_devices
from confide.common.model.lower_layers import LowerLayers, find_lower_layers
from confide.common.model.memory import require_room
from confide.common.model.plain_texts import standardise
from confide.common.privacy.gradients import per_example_gradients, wrap
from confide.common.tasks import Task
from confide.common.tasks.heads import TokenHead

PREFIX = "prefix"  # in a batch: the lower layers' output for it, shape (B, T, hidden)


@dataclass(frozen=True)
class WarmModel:
    """A base model with adapter and head, loaded once and reused by every round (and every simulated institution).

    Only its trained parameters ever change, and `train` writes all of them before it reads any.

    Attributes:
        adversarial: length of the move of adversarial training, 0 for none (`adversarial.adversarial_losses`).
        copies: the same model on further devices, for private steps alone.
        tried: the shapes that passed the client's trial and the threads it took, by bound on a micro-batch's tokens and
            by the number of threads that it found.
    """

    module: nn.Module
    wrapped: GradSampleModule
    tokenizer: Any
    task: Task
    device: torch.device
    lower: LowerLayers | None = None
    adversarial: float = 0.0
    copies: tuple["WarmModel", ...] = ()
    tried: dict[tuple[int, int], tuple[Shapes, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A native head on the last token (Llama) reads the padding id from the configuration, and fails without it.
        for part in self.module.modules():
            if isinstance(part, transformers.PreTrainedModel):
                part.config.get_text_config().pad_token_id = self.pad_token_id

    @property
    def pad_token_id(self) -> int:
        """The id that fills short rows: the tokenizer's padding id, else its id for the end of a text, else 0."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(token for token in known if token is not None)

    def made_up(self, seed: int, number: int) -> Example:
        """Return the first example of a made-up record, which fills the most tokens that the task allows."""
        examples = self.task.examples(self.task.made_up(seed, number), self.tokenizer)
        if not examples:
            raise InputError(
                "nothing can be learned of a made-up record: the base's tokenizer or chat template leaves nothing "
                "of its answer; use another base"
            )
        return examples[0]

    @property
    def pads(self) -> dict[str, int]:
        """The value that fills each column of a short row."""
        return {"input_ids": self.pad_token_id, **self.task.columns()}

    def losses(self, batch: Any) -> torch.Tensor:
        """Return one loss per example, through the wrapped module, shape ``(B,)``.

        Lower layers always give their states in the form of a `PREFIX`, even if none was kept. A disk without room for
        all prefixes must not change a gradient.
        """
        if self.lower is None:
            return self.task.losses(self.wrapped, batch)
        states = batch[PREFIX] if PREFIX in batch else self.prefix(batch)
        if self.adversarial:
            above = functools.partial(self._losses_above, batch)
            return adversarial_losses(above, states, self.adversarial, self.wrapped)
        return self._losses_above(batch, states)

    def _losses_above(self, batch: Any, states: torch.Tensor) -> torch.Tensor:
        """Return one loss per example, given what the lower layers put out."""
        if self.lower is None:
            raise ValueError("every layer of this model is adapted: there is nothing below")
        with self.lower.given(states.to(next(self.module.parameters()).dtype)):
            return self.task.losses(self.wrapped, batch)

    def prefix(self, batch: Any) -> torch.Tensor:
        """Return `lower_states` as they are kept: bfloat16, and zero on padding."""
        parts = self.lower_states(batch).to(torch.bfloat16).chunk(self.task.num_texts, dim=-1)
        masks = [text["attention_mask"].unsqueeze(-1) == 0 for text in self.task.texts(batch)]
        return torch.cat([part.masked_fill(mask, 0.0) for part, mask in zip(parts, masks, strict=True)], dim=-1)

    def lower_states(self, batch: Any) -> torch.Tensor:
        """Return the output of the layers below the lowest adapted one for a batch, ``(B, T, texts * hidden)``.

        Raises:
            ValueError: the model has no such layers.
        """
        if self.lower is None:
            raise ValueError("every layer of this model is adapted: there is nothing below")
        forward = functools.partial(self.task.losses, self.module)
        texts = [self.lower.states(functools.partial(forward, text)) for text in self.task.texts(batch)]
        return torch.cat(texts, dim=-1)


_warm: dict[str, WarmModel] = {}


def warm_model(run: RunConfig, speed: SpeedSection = AUTO, models: Path | None = None) -> WarmModel:
    """Return the model of a run. The last one is kept, so that rounds and simulated institutions share it.

    Args:
        run: model, adapter and task sections, and the public seed.
        speed: device, precision, attention and checkpointing, as in `[compute]`.
        models: an institution's folder of base models.

    Raises:
        InputError: no base model has this name and hash, the device has too little memory for it, or it cannot do what
            the run asks.
    """
    places = choose_devices(speed.device)
    key = run.model_dump_json(include={"study": {"seed"}, "model": True, "adapter": True, "task": True})
    key += f"{places} {speed.precision} {speed.attention} {speed.checkpointing} {run.local.adversarial}"
    if key not in _warm:
        forget_models()
        folder = find_model(run.at(run.model.base), models)
        found = hash_model(folder)
        if run.model.sha256 not in (None, found):
            raise InputError(f"model.sha256 = {run.model.sha256}, but the files of {run.model.base!r} hash to {found}")
        require_room(run, folder, speed)
        first, *others = (_load(run, folder, place, speed) for place in places)
        _warm[key] = replace(first, copies=tuple(others))
    return _warm[key]


def _load(run: RunConfig, folder: Path, place: torch.device, speed: SpeedSection) -> WarmModel:
    with loading(folder) as visible:
        tokenizer = load_tokenizer(visible)
        config = transformers.AutoConfig.from_pretrained(visible, trust_remote_code=False, local_files_only=True)
    _check_tokens(run, tokenizer, config)
    module = build_module(run, folder, place, speed)
    lower = find_lower_layers(module)
    if lower is not None:
        lower.texts = run.task.num_texts
    require_adversarial(run.local.adversarial, frozen_below=lower is not None, checkpointing=speed.checkpointing)
    model = WarmModel(module, wrap(module), tokenizer, run.task, place, lower, run.local.adversarial)
    _check_step(run, model)
    if isinstance(module, TokenHead):
        standardise(module, tokenizer, run.task.max_length)
    return model


def forget_models() -> None:
    """Drop the warm model and free its memory. After an error in a step, Opacus' hooks may hold its activations."""
    _warm.clear()
    gc.collect()  # these hooks and the module refer to each other
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _check_step(run: RunConfig, model: WarmModel) -> None:
    """Refuse an architecture that cannot take a step, tried on made-up texts before the client joins any run.

    It would fail only in rounds whose private draw is not empty, and so reveal them. An architecture that remembers
    its inputs would let one unit change the gradients of all others. BigBird does: after one short text it reads every
    text in another way, for ever.
    """
    first, second = (model.made_up(run.study.seed, number) for number in range(2))
    first = shortened(first, length(first) - 1)  # one row is padded, as in most micro-batches, so that a mask is read
    long = collate([first, second], padded_length(length(second)), model.pads, model.device)
    short = collate([shortened(example, 8) for example in (first, second)], 8, model.pads, model.device)
    try:
        reason = model.task.base_problem(model.module, long)
    except Exception as error:  # noqa: BLE001 - each architecture fails in its own way
        reason = f"it cannot do task.kind = {run.task.kind!r} ({type(error).__name__}: {error}); use another base"
    if reason:
        raise InputError(f"model.base = {run.model.base!r}: {reason}")
    model.wrapped.enable_hooks()
    before = _tried(run, model, long)
    if model.lower is not None:
        _tried(run, model, {**long, PREFIX: model.lower_states(long)})
    _tried(run, model, short)
    if not torch.allclose(before, _tried(run, model, long), rtol=1e-3, atol=1e-3 * float(before.abs().max())):
        raise InputError(
            f"model.base = {run.model.base!r} gives other gradients of a text after it has read a shorter one: one "
            "record could change those of all others; use another base"
        )


def _tried(run: RunConfig, model: WarmModel, batch: Batch) -> torch.Tensor:
    """Return the gradients of a batch; `InputError` gives the reason if there are none."""
    try:
        return per_example_gradients(model.wrapped, model.losses, batch)
    except Exception as error:  # noqa: BLE001 - each architecture fails in its own way
        encoder: Any = model.module.encoder
        remedy = "use other targets, another adapter.method or another base"
        if encoder.config.is_encoder_decoder and run.task.own_head:
            remedy = "an encoder-decoder is for task.kind = 'seq2seq': use that, or another base"
        raise InputError(
            f"model.base = {run.model.base!r} with {run.adapter.described()} gives no gradient for each example of "
            f"task.kind = {run.task.kind!r} ({type(error).__name__}: {error!s:.200}); {remedy}"
        ) from None


def _check_tokens(run: RunConfig, tokenizer: Any, config: Any) -> None:
    """Refuse a base without a position and an embedding for every token: a text could then end a round."""
    text, most = config.get_text_config(), tokenizer.model_max_length
    limit = min(most, getattr(text, "max_position_embeddings", None) or most)  # T5 and BLOOM have no last position
    virtual = run.adapter.virtual_tokens
    if padded_length(run.task.max_length) + virtual > limit:
        raise InputError(
            f"task.max_length = {run.task.max_length}, but {run.model.base!r} reads {limit} tokens, "
            f"{f'{virtual} of them virtual, ' if virtual else ''}and rows are "
            f"padded to a multiple of 8; at most {padded_length(limit - virtual - 7)}"
        )
    largest = max(tokenizer.get_vocab().values())  # not the number of ids, which may have gaps
    if largest >= text.vocab_size:
        raise InputError(
            f"model.base = {run.model.base!r}: its tokenizer gives ids of up to {largest}, its weights have "
            f"{text.vocab_size} embeddings; use a tokenizer and weights that belong together"
        )


@contextmanager
def forgetting_on_error() -> Iterator[None]:
    """Forget every model if the block raises."""
    try:
        yield
    except BaseException:
        forget_models()  # they may hold activations of the step that failed
        raise
