"""Training, the prefix cache, validation and prediction on a device that is not the CPU (`support.second_device`)."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun
from support.coins import TestCoins
from support.second_device import SECOND, second_device
from support.sites import batched, make_records, make_table, random_state, train_sum
from support.toy import make_plan

from confide.client.training import trial
from confide.client.training.batches import with_prefixes
from confide.client.training.validation import count_cells
from confide.common.model.adapter import get_state, set_state
from confide.common.model.evaluation import predict
from confide.common.model.warm_model import WarmModel, forget_models, warm_model
from confide.common.privacy import step
from confide.common.privacy.plan import NoPrivacy, Plan

PLANS: dict[str, Plan] = {
    "automatic": make_plan(sampling_probability=0.7),
    "abadi": make_plan(sampling_probability=0.7, clipping="abadi"),
    "plain": NoPrivacy(0.7, 5, 6),
}
BASES: dict[str, dict[str, Any]] = {
    "mean": {},
    "native": {"task": {"pooling": "native"}},
    "upper layers": {"adapter": {"layers": "top:1"}},
}
OnBoth = Callable[[Callable[[WarmModel], Any]], tuple[Any, Any]]


@pytest.fixture(
    params=[name if name == "upper layers" else pytest.param(name, marks=pytest.mark.waits) for name in BASES]
)
def on_both(request: pytest.FixtureRequest, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnBoth]:
    """``on_both(work)``: what it gives with the model on the CPU, then with the model on the other device."""
    run = make_run(**BASES[request.param])

    def run_on(device: torch.device, work: Callable[[WarmModel], Any]) -> Any:
        forget_models()
        monkeypatch.setattr("confide.common.model.warm_model.choose_devices", lambda names: [device])
        model = warm_model(run)
        assert {parameter.device for parameter in model.module.parameters()} == {device}
        return work(model)

    def both(work: Callable[[WarmModel], Any]) -> tuple[Any, Any]:
        here = run_on(torch.device("cpu"), work)
        with second_device():
            return here, run_on(SECOND, work)

    yield both
    forget_models()


@pytest.mark.parametrize(
    ("plan", "groups"),
    [("automatic", None), *(pytest.param(name, 4, marks=pytest.mark.waits) for name in ("abadi", "plain"))],
)
def test_an_update_is_the_same(on_both: OnBoth, plan: str, groups: int | None, tmp_path: Path) -> None:
    def work(model: WarmModel) -> Any:
        units = with_prefixes(batched(model, make_table(model, make_records(12, groups=groups))), model, tmp_path)
        return train_sum(PLANS[plan], model, units, TestCoins(3), steps=2)

    here, there = on_both(work)
    np.testing.assert_allclose(there, here, atol=1e-5 * np.abs(here).max())


@pytest.mark.parametrize("prefixes", [True, pytest.param(False, marks=pytest.mark.waits)])
def test_two_devices_together_give_the_update_of_one(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, prefixes: bool
) -> None:
    """Each has its own copy of the model, of the weights before the clip and of the sum."""
    sums = []
    for module in (step, trial):
        monkeypatch.setattr(module, "ThreadPoolExecutor", partial(ThreadPoolExecutor, initializer=_exists_here))
    for places in ([torch.device("cpu")], [torch.device("cpu"), SECOND]):
        monkeypatch.setattr("confide.common.model.warm_model.choose_devices", lambda names, found=places: found)
        forget_models()
        with second_device():
            model = warm_model(make_run(adapter={"layers": "top:1"}, task={"max_length": 32}))  # three lengths to try
            units = batched(model, make_table(model, make_records(20, groups=13)), tokens=100)
            units = with_prefixes(units, model, tmp_path) if prefixes else units
            sums.append(train_sum(PLANS["automatic"], model, units, TestCoins(3), steps=2))
    np.testing.assert_allclose(sums[1], sums[0], atol=1e-5 * np.abs(sums[0]).max())
    assert {units.turn(unit) % 2 for unit in range(13)} == {0, 1}
    forget_models()


_OWN = threading.local()


def _exists_here() -> None:
    """Let the second device exist in this thread until it ends."""
    _OWN.context = second_device()
    _OWN.context.__enter__()


def test_predictions_and_private_counts_are_the_same(on_both: OnBoth) -> None:
    records = make_records(6)

    def work(model: WarmModel) -> Any:
        guesses, cells = [], []
        for seed in range(6):
            set_state(model.module, random_state(model, seed))
            guesses.append(predict(model, records))
            cells.append(count_cells(model, [records[:4], records[4:]]))
        return guesses, np.stack(cells)

    (guesses, cells), (guesses_there, cells_there) = on_both(work)
    assert guesses_there == guesses
    assert {label for found in guesses for label in found} == {"negative", "positive"}
    np.testing.assert_array_equal(cells_there, cells)


def test_an_adapter_is_written_and_read_back(on_both: OnBoth) -> None:
    def work(model: WarmModel) -> Any:
        start = get_state(model.module)
        set_state(model.module, random_state(model))
        return start, get_state(model.module), random_state(model)

    (start, _, _), (start_there, read, written) = on_both(work)
    for one, other in ((start, start_there), (written, read)):
        assert one.keys() == other.keys()
        assert all((one[name] == other[name]).all() for name in one)


def test_the_device_is_as_strict_as_a_real_one() -> None:
    with second_device() as device:
        number = torch.ones(2, device=device)
        assert (number * torch.tensor(2.0)).tolist() == [2, 2]
        for wrong in (lambda: number + torch.ones(2), lambda: torch.cat([number, torch.ones(1)]), number.numpy):
            with pytest.raises(RuntimeError, match=r"all tensors on one device|numpy\(\) is not supported"):
                wrong()
