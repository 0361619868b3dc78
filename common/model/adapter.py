"""The adapter (the parameters that a method adds to a frozen base, and the head), its state that travels, its schema.

Names in a state are those of the module without PEFT's wrapping: "encoder.layer.0.attention.self.query.lora_B.weight",
"head.weight". A state is a dict from name to float32 array, in the order of the module's parameters.
"""

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from numpy.random import PCG64, Generator
from torch import Tensor, nn

from confide.common.config.simulation import AUTO, SpeedSection
from confide.common.errors import InputError
from confide.common.generation.language_model import LanguageModel
from confide.common.methods import added_by, is_added
from confide.common.model.attention import attention_of
from confide.common.model.base_models import loading
from confide.common.model.checkpointing import checkpoint_layers
from confide.common.model.devices import base_precision
from confide.common.model.families import require_sort, with_targets
from confide.common.model.quantization import quantization_of
from confide.common.tensors import Schema, State

if TYPE_CHECKING:
    from confide.common.config.run import RunConfig


def build_module(run: "RunConfig", folder: Path, device: torch.device, speed: SpeedSection = AUTO) -> nn.Module:
    """Return the base model of a run with a fresh adapter and head, in train mode without dropout.

    The order matters (Opacus issue 820): the base moves to its device first, then PEFT wraps it; Opacus comes last
    (`privacy.gradients.wrap`). With ``device`` "meta" no weights are read, which is enough for a schema.

    Args:
        run: model, adapter and task sections, and the public seed.
        folder: of the base model; on the meta device only its configuration is read.
        device: of the model.
        speed: precision of the frozen base, attention and checkpointing.

    Raises:
        InputError: the base has no modules of the names in ``adapter.targets``, or fewer layers than asked.
    """
    run = with_targets(run, folder)
    with loading(folder) as visible:
        base, config = _load_base(run, visible, device, speed)
    text = config.get_text_config()
    adapted = run.adapter.attach(base, run.task)
    module = run.task.build(adapted, text.hidden_size).to(device).train()
    for layer in module.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
    for name, parameter in module.named_parameters():
        parameter.requires_grad = _is_trained(name, run)
        if parameter.requires_grad or is_added(name):
            parameter.data = parameter.data.float()
    if speed.checkpointing:
        if run.adapter.method == "prefix-tuning" or run.task.num_texts > 1:
            what = f"adapter.method = {run.adapter.method!r} with task.kind = {run.task.kind!r}"
            raise InputError(f"checkpointing = true: {what} cannot compute layers again; leave it out")
        checkpoint_layers(adapted.get_base_model())
    if device.type != "meta":
        reset(module, run.study.seed)
    return module


def _load_base(run: "RunConfig", folder: Path, device: torch.device, speed: SpeedSection) -> tuple[nn.Module, Any]:
    transformers.logging.set_verbosity_error()  # it warns of an unused pooler that the base lacks
    transformers.logging.disable_progress_bar()
    module_class, settings = run.task.auto_class(), run.task.auto_settings()
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **settings)
    _remove_chance(config)
    require_sort(run, config)
    config.use_cache = False  # the cache of keys and values serves to generate tokens
    if device.type == "meta":
        with torch.device("meta"):
            # "eager": a configuration may name a kernel of the hub, which is code.
            return module_class.from_config(config, trust_remote_code=False, attn_implementation="eager"), config
    # A trained head of the base takes its states as they are. Our head reads bfloat16 states in float32.
    precision = torch.float32 if run.task.native_head else base_precision(device, speed.precision)
    quantization = quantization_of(run, precision)
    base, facts = module_class.from_pretrained(
        folder,
        config=config,
        dtype=precision,
        quantization_config=quantization,
        device_map={"": str(device)} if quantization else None,
        attn_implementation=attention_of(module_class, config, device, speed.attention),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # `_check_loaded` says which they are
    )
    _check_loaded(facts, run)
    return base if quantization else base.to(device), config


def _remove_chance(config: transformers.PretrainedConfig) -> None:
    """Set to 0 what a base in training draws at random: dropout, and the jitter of a router (Mixtral, DBRX).

    Both come from torch's generator, whose stream goes on from unit to unit: a text's gradient would depend on how many
    were read before it.
    """
    for name, value in list(vars(config).items()):
        if isinstance(value, transformers.PretrainedConfig):
            _remove_chance(value)
        elif isinstance(value, float) and ("drop" in name or "jitter" in name):
            setattr(config, name, 0.0)


def _check_loaded(facts: dict[str, Any], run: "RunConfig") -> None:
    """Refuse a base whose files lack frozen weights: transformers draws missing ones at random, anew each time."""
    drawn = run.task.head_parts() | run.task.untrained_parts()
    absent = sorted(name for name in facts["missing_keys"] if not any(f"{part}." in name for part in drawn))
    if absent:
        raise InputError(
            f"model.base = {run.model.base!r} lacks weights, {absent[0]!r} among {len(absent)}; "
            f"use the complete model, or {run.task.head_setting()}: task.kind = {run.task.kind!r} needs "
            f"{run.task.base_wanted()}"
        )
    for name, *shapes in sorted(facts["mismatched_keys"]):
        found, built = map(tuple, shapes)
        outputs = run.task.num_outputs
        if run.task.native_head and built == (outputs, *found[1:]):
            raise InputError(
                f"model.base = {run.model.base!r}: its head has {found[0]} label{'s'[: found[0] != 1]}, task.labels "
                f"{outputs}; use {run.task.head_setting()}, which has a head of its own"
            )
        raise InputError(
            f"model.base = {run.model.base!r}: {name} is of shape {found} in its weights, must be "
            f"{built} by its configuration; copy the model again"
        )


def _is_trained(name: str, run: "RunConfig") -> bool:
    if is_added(name):
        return run.adapter.trains(name)
    parts = name.split(".")
    in_native_head = run.task.native_head and not run.task.head_parts().isdisjoint(parts)
    return parts[0] == "head" or (in_native_head and "original_module" not in parts)  # PEFT trains a copy


def reset(module: nn.Module, seed: int) -> None:
    """Set start values from the public seed: those of the method, and a small head.

    With LoRA's B and the head both zero, B's first gradient would be exactly zero. So the head starts at a hundredth.
    Each tensor has a random stream of its own, from the seed and its name: the same on every machine and in any order.
    """
    for name, parameter in module.named_parameters():
        if not (parameter.requires_grad or is_added(name)):
            continue
        stream = Generator(PCG64([seed, zlib.crc32(public_name(name).encode())]))
        if method := added_by(name):
            start = method.start_value(name, tuple(parameter.shape), stream)
        else:
            scale = 0.0 if parameter.ndim == 1 else 0.01
            start = scale * stream.standard_normal(tuple(parameter.shape))
        parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(start, dtype=np.float32)))
    if isinstance(module, LanguageModel):
        module.keep_start()


def public_name(name: str) -> str:
    """Return a parameter's name in a state.

    >>> public_name("encoder.base_model.model.encoder.layer.5.attention.self.query.lora_B.default.weight")
    'encoder.layer.5.attention.self.query.lora_B.weight'
    >>> public_name("head.bias")
    'head.bias'
    """
    for wrapping in ("base_model.model.", ".modules_to_save.default", ".default"):
        before, found, after = name.rpartition(wrapping) if wrapping[0] != "." else name.partition(wrapping)
        if found:
            name = after if wrapping[0] != "." else before + after
    return name


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained parameters by public name, in the module's order."""
    return {public_name(name): value for name, value in module.named_parameters() if value.requires_grad}


def schema(module: nn.Module) -> Schema:
    """Return name and shape of every tensor in a state of this module."""
    return {name: tuple(parameter.shape) for name, parameter in trainable(module).items()}


def coordinate_weights(shapes: Schema, head_weight: float) -> Tensor:
    """Public weight of each coordinate before the clip, shape ``(P,)``: ``head_weight`` on the head, else 1."""
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    weights = [1.0 if is_added(name) else head_weight for name in shapes]
    return torch.repeat_interleave(torch.tensor(weights), torch.tensor(sizes))


def get_state(module: nn.Module) -> State:
    """Return a copy of the trained parameters."""
    return {name: value.detach().float().cpu().numpy().copy() for name, value in trainable(module).items()}


def set_state(module: nn.Module, state: State) -> None:
    """Write a state that has passed the gate into the module."""
    with torch.no_grad():
        for name, parameter in trainable(module).items():
            parameter.copy_(torch.from_numpy(state[name]))
