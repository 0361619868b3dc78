"""The names of devices in `[compute]` and `[speed]`."""

import pytest
import torch

from confide.common.errors import InputError
from confide.common.model import devices
from confide.common.model.devices import choose_devices


def test_one_name_is_one_device() -> None:
    assert choose_devices("cpu") == [torch.device("cpu")]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are taken as they are, without a GPU."""
    monkeypatch.setattr(devices, "choose_device", torch.device)


@pytest.mark.usefixtures("two_gpus")
def test_several_gpus_are_separated_by_commas() -> None:
    assert choose_devices("cuda:0, cuda:1") == [torch.device("cuda:0"), torch.device("cuda:1")]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("names", ["cuda:0,cuda:0", "cuda,cuda:1", "cpu,cpu", "cuda:0,cpu", "cpu:0,cpu:1"])
def test_several_must_be_different_gpus(names: str) -> None:
    with pytest.raises(InputError, match=f"device = {names!r}: several must be different GPUs"):
        choose_devices(names)


def test_the_memory_of_a_gpu_is_that_of_the_one_that_held_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is shared out among all GPUs of a run."""
    peaks = {0: 3 * 2**20, 1: 5 * 2**20}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(peaks))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda number: peaks[number])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda number: peaks.update({number: 2**20}))
    assert devices.gpu_peak_mb() == 5
    assert devices.peak_memory().endswith(" MB and 5 MB on the GPU")
    devices.forget_gpu_peak()
    assert devices.gpu_peak_mb() == 1


def test_without_a_gpu_its_memory_is_nothing() -> None:
    devices.forget_gpu_peak()
    assert devices.gpu_peak_mb() == 0
    assert "GPU" not in devices.peak_memory()
