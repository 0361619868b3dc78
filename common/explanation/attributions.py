"""The share of each token in a value of a model: integrated gradients (Sundararajan 2017), computed by Captum.

The way leads from a text of padding, which keeps the special tokens, to the text. The shares add up to the difference
of the value between the two ("completeness"), but for the error of a sum in place of an integral.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from confide.common.data.batches import collate, length
from confide.common.errors import InputError
from confide.common.model.warm_model import WarmModel
from confide.common.tasks.task import Example

TOLERANCE = 0.02  # of the largest share by which their sum may differ from the difference, before more steps are taken
_STEPS = (32, 128, 512)
_ROWS = 16  # of a step that are computed together

Value = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Attribution:
    """The shares of an example's tokens in a value.

    Attributes:
        value: of the text.
        baseline: of the text of padding.
        shares: one for each token; about ``value - baseline`` together.
    """

    value: float
    baseline: float
    shares: list[float]


def require_captum() -> Any:
    """Return Captum's module of attributions; `InputError` says how to install it."""
    try:
        from captum import attr
    except ImportError:
        raise InputError("--explain needs Captum; pip install '.[explain]' in a checkout of Confide") from None
    return attr


def attribute(model: WarmModel, example: Example, special: list[bool], value: Value) -> Attribution:
    """Return the shares of an example's tokens in a value.

    Args:
        model: in float32: in bfloat16 the shares would not add up.
        example: with at least one token.
        special: True for each special token, which is the same in both texts.
        value: gives the value for each row of a batch, shape ``(B,)``.
    """
    batch = collate([example], length(example), model.pads, model.device)
    kept = torch.tensor([special], device=model.device)
    baseline = batch["input_ids"].where(kept, model.pad_token_id)
    names = [name for name in batch if batch[name].dim() == 2 and name != "input_ids"]

    def forward(input_ids: Tensor, *columns: Tensor) -> Tensor:
        return value(model.module, {"input_ids": input_ids, **dict(zip(names, columns, strict=True))})

    columns = tuple(batch[name] for name in names)
    with torch.no_grad():
        ends = [float(forward(ids, *columns)[0]) for ids in (batch["input_ids"], baseline)]
    embeddings = model.module.encoder.get_base_model().get_input_embeddings()  # type: ignore[operator, union-attr]
    method = require_captum().LayerIntegratedGradients(forward, embeddings)
    shares = torch.zeros(0)
    for steps in _STEPS:
        found = method.attribute(
            batch["input_ids"],
            baselines=baseline,
            additional_forward_args=columns,
            n_steps=steps,
            internal_batch_size=_ROWS,
        )
        shares = found.sum(dim=2)[0].detach().double()
        if abs(float(shares.sum()) - (ends[0] - ends[1])) <= TOLERANCE * float(shares.abs().max()):
            break
    return Attribution(ends[0], ends[1], shares.tolist())
