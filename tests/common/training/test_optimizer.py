import itertools

import numpy as np
import pytest
import torch

from confide.common.config.sections import FederationSection
from confide.common.tensors import State
from confide.common.training.optimizer import GlobalState, apply, start


def _state(seed: int) -> State:
    random = np.random.Generator(np.random.PCG64(seed))
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in {"b": (3, 2), "a": (4,)}.items()}


def _run(updates: list[State], **settings: object) -> list[GlobalState]:
    states = [start(_state(0))]
    for update in updates:
        states.append(apply(states[-1], update, FederationSection(**settings)))
    return states


def test_adamw_is_that_of_torch_on_the_negative_update() -> None:
    updates = [_state(seed) for seed in range(1, 6)]
    states = _run(updates, num_rounds=5, learning_rate=0.01)
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in _state(0).items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=0.01, betas=(0.8, 0.999), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / 5)
    for update in updates:
        for name, value in weights.items():
            value.grad = -torch.tensor(update[name])
        optimizer.step()
        schedule.step()
    for name, value in weights.items():
        np.testing.assert_allclose(states[-1].adapter[name], value.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("left", "shares"), [(0.0, (1, 0.75, 0.5, 0.25)), (0.5, (1, 0.875, 0.75, 0.625)), (1.0, (1,) * 4)]
)
def test_the_rate_falls_to_what_is_left(left: float, shares: tuple[float, ...]) -> None:
    """Of equal updates AdamW's step is the rate itself."""
    up = {name: np.ones_like(value) for name, value in _state(0).items()}
    states = _run([up] * 4, num_rounds=4, learning_rate=0.01, learning_rate_left=left)
    steps = [float((after.adapter["a"] - before.adapter["a"])[0]) for before, after in itertools.pairwise(states)]
    np.testing.assert_allclose(steps, [0.01 * share for share in shares], rtol=1e-3)


def test_a_run_whose_rate_falls_to_zero_keeps_its_hash() -> None:
    assert "learning_rate_left" not in FederationSection().model_dump_json()
    assert "learning_rate_left" in FederationSection(learning_rate_left=1.0).model_dump_json()


def test_none_adds_the_update() -> None:
    state = _run([_state(1)], server_optimizer="none")[-1]
    for name in state.adapter:
        np.testing.assert_array_equal(state.adapter[name], _state(0)[name] + _state(1)[name])


def test_adamw_moves_where_the_update_points() -> None:
    state = _run([{"b": np.ones((3, 2), np.float32), "a": -np.ones(4, np.float32)}], learning_rate=0.01)[-1]
    np.testing.assert_allclose(state.adapter["b"] - _state(0)["b"], 0.01, atol=1e-5)
    np.testing.assert_allclose(state.adapter["a"] - _state(0)["a"], -0.01, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "none"])
def test_the_released_average_is_exponential_and_forgets_the_start(optimizer: str) -> None:
    states = _run([_state(seed) for seed in range(1, 40)], server_optimizer=optimizer, average_decay=0.9)
    np.testing.assert_array_equal(states[1].average["a"], states[1].adapter["a"])
    np.testing.assert_allclose(states[2].average["a"], (states[1].adapter["a"] + states[2].adapter["a"]) / 2, atol=1e-6)
    late = 0.9 * states[-2].average["a"] + 0.1 * states[-1].adapter["a"]
    np.testing.assert_allclose(states[-1].average["a"], late, atol=1e-6)


def test_everything_stays_float32_and_rounds_count() -> None:
    state = _run([_state(1), _state(2)])[-1]
    assert state.round == 2
    for part in (state.adapter, state.average, state.first, state.second):
        assert {value.dtype for value in part.values()} == {np.dtype(np.float32)}


def test_rounds_beyond_the_plan_do_not_move_the_adapter() -> None:
    states = _run([_state(seed) for seed in range(1, 5)], num_rounds=3)
    np.testing.assert_array_equal(states[4].adapter["a"], states[3].adapter["a"])


def test_a_state_is_never_changed_in_place() -> None:
    first = start(_state(0))
    apply(first, _state(1), FederationSection())
    np.testing.assert_array_equal(first.adapter["b"], _state(0)["b"])
    assert not first.first["b"].any()
