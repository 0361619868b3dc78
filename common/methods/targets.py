"""The layers that `adapter.targets` name: each name fits at least one, and every layer that fits can be trained."""

from collections.abc import Sequence

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from confide.common.errors import InputError
from confide.common.methods.inserted import LINEAR
from confide.common.tasks.task import Task


def check_targets(base: nn.Module, targets: Sequence[str], layers: str, task: Task, config: LoraConfig) -> None:
    """Refuse a name that fits no layer, and a layer whose adapter would be exported untrained, as it was drawn.

    PEFT silently ignores a name that fits nothing if another name fits, and it puts other factors on an embedding.

    Args:
        base: without any adapter.
        targets: names.
        layers: as in `[adapter]`, for messages.
        task: says what is the base's own head, and what a loss does not pass.
        config: for PEFT; says which layers "top:N" means.

    Raises:
        InputError: names the target.
    """
    for target in targets:
        named = [(name, layer) for name, layer in base.named_modules() if _fits(name, target)]
        if not named:
            raise InputError(
                f"adapter.targets names {target!r}, which is no layer of this base model; "
                f"its linear layers are {', '.join(_linear_names(base))}"
            )
        apart = [pair for pair in named if not _is_in_head(pair[0], task)]  # PEFT leaves the head out
        adapted = [pair for pair in apart if check_target_module_exists(config, pair[0])]
        for name, layer in adapted:
            _check_layer(target, name, layer, task)
        if apart and not adapted:
            raise InputError(
                f"adapter.targets names {target!r}, which is no layer in adapter.layers = {layers!r}, "
                f"only {apart[0][0]}; leave it out, or use layers = 'all'"
            )
        if not adapted:
            raise InputError(
                f"adapter.targets names {target!r}, which is {named[0][0]}, part of the head, which is trained as a "
                "whole under task.pooling = 'native'; leave it out"
            )


def _fits(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _is_in_head(name: str, task: Task) -> bool:
    return task.native_head and not task.head_parts().isdisjoint(name.split("."))


def _linear_names(base: nn.Module) -> list[str]:
    linear = [name.rpartition(".")[2] for name, layer in base.named_modules() if isinstance(layer, LINEAR)]
    return [repr(name) for name in dict.fromkeys(linear)]


def _check_layer(target: str, name: str, layer: nn.Module, task: Task) -> None:
    if not isinstance(layer, LINEAR):
        raise InputError(
            f"adapter.targets names {target!r}, which is {name} of type {type(layer).__name__}, must be a linear "
            "layer: others are not trained under privacy; leave it out, or name linear layers"
        )
    if not task.untrained_parts().isdisjoint(name.split(".")):
        raise InputError(
            f"adapter.targets names {target!r}, which is {name} too, and no gradient of task.kind = "
            f"{getattr(task, 'kind', '')!r} passes that; name the others by more of their names, as in 'output.dense'"
        )
