"""Exposure: a secret in the training texts is found without privacy, and with it no better than by chance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.kinds import of_kind

from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model
from confide.simulations.reconstruction import exposure
from confide.simulations.reconstruction.exposure import Secret, bits_of, expose, records_of

MakeRun = Callable[..., RunConfig]


def _locked(make_run: MakeRun, form: str, rounds: int, **task: Any) -> RunConfig:
    """A causal run at epsilon 3 that trains long and fast enough to learn a text by heart."""
    sections: dict[str, dict[str, Any]] = {
        "federation": {"num_rounds": rounds, "learning_rate": 0.05},
        "local": {"sampling_probability": 0.2, "nominal_units": 100},
        "privacy": {"noise_multiplier": None, "target_epsilon": 3.0},
    }
    run = of_kind(make_run(**sections), "causal-lm, text")
    changes = {
        "adapter": run.adapter.model_copy(update={"rank": 32, "targets": "all-linear"}),
        "task": run.task.model_copy(update={"form": form, **task}),
    }
    return lock(run.model_copy(update=changes), hash_model(Path(run.model.base)))


def test_exposure_counts_the_candidates_that_lie_behind() -> None:
    others = np.arange(1.0, 128.0)
    assert bits_of(0.0, others) == 7
    assert bits_of(200.0, others) == 0
    assert bits_of(63.5, others) == 1
    assert bits_of(5.0, np.full(127, 5.0)) < 1.1, "a model that tells nothing apart exposes nothing"


def test_a_random_rank_exposes_1_44_bits_on_average() -> None:
    chance = np.random.Generator(np.random.PCG64(1))
    drawn = chance.random((4000, 128))
    assert np.mean([bits_of(row[0], row[1:]) for row in drawn]) == pytest.approx(1.44, abs=0.15)


@pytest.mark.parametrize("form", ["text", "completion", "messages"])
def test_a_secret_is_a_whole_unit_of_its_own_as_often_as_it_is_said(make_run: MakeRun, form: str) -> None:
    run = _locked(make_run, form, 1)
    for unit in ("record", "group"):
        this = run.model_copy(update={"privacy": run.privacy.model_copy(update={"unit": unit})})
        records = records_of(this, [Secret("ANNA", "4839201", 4), Secret("EMMA", "7777777", 0)])
        assert len(records) == exposure._UNITS
        assert sum("4839201" in str(record) for record in records) == 4
        assert not any("7777777" in str(record) for record in records)
        assert len({record.get("group") for record in records}) == (exposure._UNITS if unit == "group" else 1)


def test_kinds_that_write_nothing_and_texts_without_room_tell_why(make_run: MakeRun) -> None:
    assert "learns no text to write" in str(expose(make_run()).void)
    assert "leaves no room" in str(expose(_locked(make_run, "text", 1, max_length=16)).void)


@pytest.mark.waits
def test_a_run_trains_as_many_rounds_as_time_allows(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "_SECONDS", 1e-6)
    monkeypatch.setattr(exposure, "_NAMES", ("ANNA", "BRUNO", "CLARA"))
    monkeypatch.setattr(exposure, "CANDIDATES", 8)
    found = expose(_locked(make_run, "completion", 3), np.random.Generator(np.random.PCG64(0)))
    assert (found.rounds, found.num_rounds) == (1, 3)
    assert [one.copies for one in found.private] == [one.copies for one in found.open] == [1, 4, 0]
    assert found.as_json()["most"] == 3


@pytest.mark.waits
def test_secrets_are_exposed_without_privacy_and_hidden_by_it(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure, "_SECONDS", 1e6)
    monkeypatch.setattr(exposure, "_UNITS", 20)  # so that a tiny model learns them by heart in 20 s
    found = expose(_locked(make_run, "completion", 200), np.random.Generator(np.random.PCG64(0)))
    assert found.rounds == 200
    once, four, none = found.open
    assert min(once.bits, four.bits) >= 5.5
    assert once.told + four.told >= 1
    assert (none.bits <= 5, none.told) == (True, 0)
    assert max(one.bits for one in found.private) <= 5
    assert sum(one.told for one in found.private) == 0
