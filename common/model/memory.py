"""The memory that a base and a step need, estimated before any weight is read, and the memory of a device.

A real step tells more, and a client tries the fullest one before it joins a run. But on a CPU it ends the process that
tries it, and a large base takes minutes to load.
"""

from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from confide.common.config.run import RunConfig
from confide.common.config.simulation import SpeedSection
from confide.common.data.shapes import Shape, public_shapes
from confide.common.errors import InputError
from confide.common.methods import is_added
from confide.common.methods.inserted import stacks
from confide.common.model.adapter import build_module
from confide.common.model.devices import base_precision, choose_devices

GIB = 2**30
MAX_GRADIENT_NUMBERS = 2**26  # in a micro-batch's matrix of rows by parameters: 256 MB of float32
_KEPT = 1.5  # numbers kept for the backward pass, over the outputs of linear layers and norms: an upper bound
_OTHER_BASE = "use another device, or ask for a run with a smaller base or with model.quantization"
_QUANTISED = {"nf4": 0.52, "int8": 1.01}  # bytes of a number, with the scales of its block


class Memory(NamedTuple):
    """Bytes of a device: free at present, and all that a process could have."""

    free: int
    whole: int


class Fit(NamedTuple):
    """The need of a run and the memory of its device.

    Attributes:
        base: bytes of the base.
        step: bytes that the fullest step takes beside it.
        shape: of that step.
        device: for the run; of several, the one with the least memory.
        memory: of that device.
    """

    base: int
    step: int
    shape: Shape
    device: torch.device
    memory: Memory

    def problem(self, name: str) -> str | None:
        """Return why a base of this name does not fit the device; None if it fits the whole of its memory."""
        whole, (rows, tokens) = self.memory.whole, self.shape
        if self.base + self.step <= whole:
            return None
        remedy = "lower compute.tokens_per_micro_batch or set compute.checkpointing = true"
        if self.base > whole:
            remedy = _OTHER_BASE
        return (
            f"base model {name!r} takes about {self.base / GIB:.1f} GiB and a step of {rows} rows of {tokens} tokens "
            f"{self.step / GIB:.1f} GiB, together more than the {whole / GIB:.1f} GiB of {self.device}; {remedy}"
        )


def memory_of(device: torch.device) -> Memory:
    """Return the memory of a GPU, or of this machine or container (cgroup v2)."""
    if device.type == "cuda":
        return Memory(*torch.cuda.mem_get_info(device))
    found = psutil.virtual_memory()
    free, whole = found.available, found.total
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.is_file() and (most := limit.read_text(encoding="utf-8").strip()).isdigit():
        # The page cache counts as used, but the kernel gives back what nobody reads of it: kubelet counts so too.
        fields = dict(line.split() for line in used.with_name("memory.stat").read_text(encoding="utf-8").splitlines())
        taken = int(used.read_text(encoding="utf-8")) - int(fields.get("inactive_file", 0))
        free, whole = min(free, int(most) - taken), min(whole, int(most))
    return Memory(free, whole)


def require_room(run: RunConfig, folder: Path, speed: SpeedSection) -> None:
    """Refuse a base that is larger than the device's whole memory: reading its weights would end the process.

    Only the base counts: its size is known, while that of a step is an estimate.

    Raises:
        InputError: it is larger; or it cannot be built, or the device is not there.
    """
    device, number = _least(run, speed)
    base = _base_bytes(build_module(run, folder, torch.device("meta")), number, run.model.quantization)
    if base > (whole := memory_of(device).whole):
        raise InputError(
            f"base model {run.model.base!r} takes about {base / GIB:.1f} GiB, more than the {whole / GIB:.1f} GiB of "
            f"{device}; {_OTHER_BASE}"
        )


def fit_of(run: RunConfig, folder: Path, speed: SpeedSection) -> Fit:
    """Return an estimate of the memory that a run needs, right to about a factor of two, and that of its device.

    Args:
        run: model, adapter and task sections.
        folder: of the base model; only its configuration is read.
        speed: `[compute]` of the institution.

    Raises:
        InputError: the base cannot be built, or the device is not there.
    """
    device, number = _least(run, speed)
    module = build_module(run, folder, torch.device("meta"))
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    shapes = public_shapes(
        run.task.max_length, speed.tokens_per_micro_batch, max(1, MAX_GRADIENT_NUMBERS // trained)
    ).all()
    eager = speed.attention == "eager" or (speed.attention == "auto" and device.type != "cuda")
    virtual, texts = run.adapter.virtual_tokens, run.task.num_texts
    kept = {
        (rows, tokens): texts
        * kept_numbers(module, (rows, tokens + virtual), eager=eager, checkpointing=speed.checkpointing)
        for rows, tokens in shapes
    }
    fullest = max(kept, key=lambda shape: kept[shape])
    gradients = 2 * 4 * fullest[0] * trained  # of each layer, and joined
    base = _base_bytes(module, number, run.model.quantization)
    return Fit(base, int(kept[fullest] * number) + gradients, fullest, device, memory_of(device))


def _least(run: RunConfig, speed: SpeedSection) -> tuple[torch.device, int]:
    """Return the device with the least memory, and the bytes of a number of the frozen base on it."""
    device = min(choose_devices(speed.device), key=lambda each: memory_of(each).whole)
    return device, (torch.float32 if run.task.native_head else base_precision(device, speed.precision)).itemsize


def kept_numbers(module: nn.Module, shape: Shape, *, eager: bool, checkpointing: bool) -> float:
    """Return about how many numbers a forward pass keeps for the backward pass of a micro-batch.

    Args:
        module: an adapted base, on any device.
        shape: of the micro-batch.
        eager: each head keeps the scores of all pairs of tokens.
        checkpointing: a layer keeps its input alone, and one layer at a time keeps the rest.
    """
    rows, tokens = shape
    encoder: Any = module.encoder
    config = encoder.config.get_text_config()
    layers = _passed_by_gradients(module)
    if not layers:  # the head alone is trained
        return 0.0
    outputs = sum(_outputs(part) for layer in layers for part in layer.modules())
    outputs += getattr(config, "num_experts_per_tok", 0) * sum(
        value.shape[1] for layer in layers for value in layer.parameters() if value.ndim == 3
    )
    scores = config.num_attention_heads * len(layers) * tokens if eager else 0
    kept = rows * tokens * (_KEPT * outputs + scores)
    return rows * tokens * config.hidden_size * len(layers) + kept / len(layers) if checkpointing else kept


def _base_bytes(module: nn.Module, number: int, quantization: str) -> int:
    inside = {id(value) for stack in stacks(module) for value in stack.parameters()}

    def size(name: str, value: nn.Parameter) -> float:
        if value.requires_grad or is_added(name):
            return 4
        return _QUANTISED.get(quantization, number) if value.ndim == 2 and id(value) in inside else number

    return int(sum(value.numel() * size(name, value) for name, value in module.named_parameters()))


def _passed_by_gradients(module: nn.Module) -> list[nn.Module]:
    """Return the layers that a gradient passes: from the lowest changed one of each stack, or all under a prompt."""
    added = {id(value) for name, value in module.named_parameters() if is_added(name)}
    layers = [list(stack) for stack in stacks(module)]
    inside = {id(value) for stack in layers for layer in stack for value in layer.parameters()}
    if added - inside:
        return [layer for stack in layers for layer in stack]
    changed = [[n for n, layer in enumerate(stack) if _has(layer, added)] for stack in layers]
    return [layer for stack, found in zip(layers, changed, strict=True) if found for layer in stack[found[0] :]]


def _has(layer: nn.Module, parameters: set[int]) -> bool:
    return any(id(value) in parameters for value in layer.parameters())


def _outputs(part: nn.Module) -> int:
    """Return how many numbers a linear layer or a norm gives for a token."""
    if isinstance(part, nn.Linear):
        return part.out_features
    if isinstance(part, Conv1D):
        return int(part.nf)
    weight = getattr(part, "weight", None)
    return weight.numel() if isinstance(weight, nn.Parameter) and weight.ndim == 1 else 0
