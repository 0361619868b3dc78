import pytest
import torch
from support import guarantees
from support.sites import batched, make_records, make_table, random_state
from torch import Tensor, nn

from confide.common.model.adapter import schema, set_state
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.gradients import per_example_gradients, wrap


def _autograd_loop(model: WarmModel, batch: dict[str, Tensor]) -> Tensor:
    """Each example's gradient by plain autograd, in the order of a state."""
    model.wrapped.disable_hooks()
    parameters = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    rows = []
    for row in range(len(batch["label"])):
        loss = model.task.losses(model.module, {name: values[row : row + 1] for name, values in batch.items()})
        rows.append(torch.cat([gradient.ravel() for gradient in torch.autograd.grad(loss.sum(), parameters)]))
    model.wrapped.enable_hooks()
    return torch.stack(rows)


def test_per_example_gradients_equal_a_loop_over_examples(model: WarmModel) -> None:
    set_state(model.module, random_state(model))
    site = batched(model, make_table(model, make_records(12)), tokens=400)
    batches = [batch for batch, _ in site.micro_batches(list(range(12)))]
    assert 1 < len(batches) < 12
    for batch in batches:
        expected = _autograd_loop(model, batch)
        actual = per_example_gradients(model.wrapped, model.losses, batch)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_gradients_stand_in_the_order_of_a_state(model: WarmModel) -> None:
    named = [(name, tuple(value.shape)) for name, value in model.wrapped.named_parameters() if value.requires_grad]
    shapes = schema(model.module)
    assert [shape for _, shape in named] == list(shapes.values())
    assert all(name.split(".")[-1] == own.split(".")[-1] for (name, _), own in zip(named, shapes, strict=True))


def test_no_gradient_stays_behind(model: WarmModel) -> None:
    site = batched(model, make_table(model, make_records(4)))
    for batch, _ in site.micro_batches([0, 1, 2, 3]):
        per_example_gradients(model.wrapped, model.losses, batch)
    left = [p for p in model.wrapped.parameters() if p.grad is not None or getattr(p, "grad_sample", None) is not None]
    assert left == []


def test_gradients_are_float32_whatever_the_forward_pass_used() -> None:
    layer = nn.Linear(4, 3).bfloat16()
    module = wrap(layer)
    gradients = per_example_gradients(
        module, lambda x: module(x).sum(dim=(1, 2)).float(), torch.ones(2, 5, 4).bfloat16()
    )
    assert gradients.dtype == torch.float32
    assert gradients.tolist() == [[5.0] * 15] * 2


def test_a_unit_counts_as_its_clipped_mean_gradient_in_any_micro_batches(model: WarmModel) -> None:
    guarantees.check_a_unit_counts_as_its_clipped_mean_gradient(model)


def test_a_unit_s_clipped_gradient_is_bit_for_bit_the_same_in_any_company(model: WarmModel) -> None:
    """In any company, and alone."""
    guarantees.check_companions_do_not_change_a_unit(model)


def test_a_loss_is_of_its_own_example_alone(model: WarmModel) -> None:
    guarantees.check_a_loss_is_of_its_own_example(model)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.LayerNorm(3), "must be nn.Linear"),
        (nn.Embedding(3, 3), "must be nn.Linear"),
        (nn.Linear(3, 3).eval(), "in train mode"),
        (nn.Dropout(0.1), "dropout"),
        (nn.Dropout1d(0.1), "dropout"),
        (nn.BatchNorm1d(3).requires_grad_(False), "batch"),
    ],
    ids=["layer norm", "embedding", "eval mode", "dropout", "dropout of channels", "batch statistics"],
)
def test_a_layer_without_a_gradient_of_its_own_examples_is_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(nn.Sequential(nn.Linear(3, 3), layer))


class _SharedProjection(torch.nn.Module):
    """As DeBERTa: one trained projection for the texts and, with one row for all of them, for their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = torch.nn.Linear(3, 2)

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        return (self.projection(texts) + self.projection(torch.ones(1, 4, 3))).sum(dim=(1, 2))


def test_a_layer_that_is_used_on_more_than_its_examples_is_refused() -> None:
    """Opacus would put the gradient of all examples into the first row."""
    module = wrap(_SharedProjection())
    with pytest.raises(RuntimeError, match="one row for each example"):
        per_example_gradients(module, module, torch.ones(3, 4, 3))


class _TwoHeads(nn.Module):
    """A base whose loss passes one of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.left_out = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, texts: Tensor) -> Tensor:
        return self.used(texts).sum(dim=(1, 2))


def test_a_trained_layer_that_the_loss_does_not_pass_is_refused() -> None:
    """Its part of a row would be missing, and every later part would stand at another place."""
    module = wrap(_TwoHeads())
    with pytest.raises(RuntimeError, match=r"left_out\.weight has no gradient for each example"):
        per_example_gradients(module, module, torch.ones(3, 4, 3))
