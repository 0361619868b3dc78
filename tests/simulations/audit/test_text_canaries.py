"""Canaries in text: who is in, what guesses prove, and what a missing noise gives away."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.kinds import RECORDS, SETTINGS, of_kind
from support.sites import make_records

from confide.client.training import shares
from confide.common.config.run import RunConfig, lock
from confide.common.errors import InputError
from confide.common.model.base_models import hash_model
from confide.common.privacy import noise
from confide.simulations.audit import text_canaries
from confide.simulations.audit.text_canaries import TextAudit, audit_texts, make_canaries, with_canaries
from confide.simulations.studies.prepared import load, locked
from confide.simulations.studies.remembered import Checked
from confide.simulations.studies.reruns import Reran

MakeRun = Callable[..., RunConfig]
# Three institutions of 80 questions each, drawn so often that a model learns some canaries by heart without noise.
SMALL = [
    "simulation.clients=3",
    "simulation.max_records=100",
    "local.sampling_probability=0.5",
    "local.nominal_units=100",
    "federation.num_rounds=30",
    "privacy.target_epsilon=0.2",
]

_LITTLE = 1.5  # five times what is stated: a bound passes what is stated in one run of twenty, by chance


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    """A run of three rounds at epsilon 0.3, in which half of all units are drawn and a fifth is held out."""
    return make_run(
        federation={"num_rounds": 3, "min_clients": 3},
        local={"sampling_probability": 0.5, "nominal_units": 20},
        privacy={"target_epsilon": 0.3, "noise_multiplier": None},
        simulation={"data": "vader", "validation_fraction": 0.2},
    )


def _audit(run: RunConfig, records: list[Any], patch: pytest.MonkeyPatch, count: int = 60) -> TextAudit:
    private = {name: records[place::3] for place, name in enumerate("abc")}
    patch.setattr(text_canaries, "load_institutions", lambda run: SimpleNamespace(private=private))
    run = lock(run, hash_model(Path(run.model.base)))
    return audit_texts(run, count, chance=np.random.default_rng(0))


def _learnt_by_heart(patch: pytest.MonkeyPatch, gain: float) -> None:
    """Nothing is trained; the loss of each canary that is in falls by ``gain``, and that of all others by nothing."""
    read: set[tuple[int, ...]] = set()

    def rerun(run: RunConfig, private: dict[str, list[Any]]) -> Reran:
        tokenizer = text_canaries.warm_model(run, run.speed).tokenizer
        for record in (record for records in private.values() for record in records):
            read.update(tuple(example["input_ids"]) for example in run.task.examples(record, tokenizer))
        return Reran({}, [SimpleNamespace(adapter="later")], "finished")  # type: ignore[list-item, arg-type]

    def unit_losses(model: Any, units: list[Any], state: Any) -> Any:
        inside = np.array([tuple(unit[0]["input_ids"]) in read for unit in units])
        return 1.0 - gain * inside if state else np.ones(len(units))

    patch.setattr(text_canaries, "rerun", rerun)
    patch.setattr(text_canaries, "unit_losses", unit_losses)


def test_canaries_that_are_learnt_by_heart_prove_all_that_so_many_can(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _learnt_by_heart(monkeypatch, 0.5)
    found = _audit(run, make_records(24), monkeypatch, 200)
    assert not found.view.holds
    assert found.view.bound == found.most_provable > 3
    assert 70 < found.members < 130


def test_members_and_outsiders_in_each_other_s_place_prove_nothing(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _learnt_by_heart(monkeypatch, -0.5)
    found = _audit(run, make_records(24), monkeypatch, 200)
    assert (found.view.bound, found.view.holds) == (0.0, True)
    assert max(attack.hits for attack in found.view.attacks) == 0.0


def test_every_canary_that_is_in_is_trained_on_and_no_other(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run of the product; and right code proves little."""
    trained: set[str] = set()
    real_units, real_canaries, made = shares.make_units, text_canaries.with_canaries, list[Any]()

    def make_units(records: list[dict[str, str]], *rest: Any) -> Any:
        trained.update(record["text"] for record in records)
        return real_units(records, *rest)

    def joined(private: Any, canaries: Any, inside: Any) -> Any:
        made.extend(zip(canaries, inside, strict=True))
        return real_canaries(private, canaries, inside)

    monkeypatch.setattr(shares, "make_units", make_units)
    monkeypatch.setattr(text_canaries, "with_canaries", joined)
    found = _audit(run, make_records(24), monkeypatch)
    assert found.view.bound < _LITTLE
    assert len(made) == 60
    assert 15 < found.members < 45
    assert all((canary.record["text"] in trained) == is_in for canary, is_in in made)


def test_a_canary_of_a_run_of_groups_is_a_group_of_its_own(run: RunConfig) -> None:
    private = {"a": make_records(6, groups=3)}
    canaries = make_canaries(run, private, 20, np.random.default_rng(0))
    assert len({canary.record["group"] for canary in canaries}) == 20
    assert len(with_canaries(private, canaries, np.arange(20) < 5)["a"]) == 11
    assert len(private["a"]) == 6


def test_a_run_without_privacy_states_nothing_that_texts_could_pass(run: RunConfig) -> None:
    with pytest.raises(InputError, match="states no epsilon"):
        audit_texts(run.model_copy(update={"privacy": run.privacy.model_copy(update={"unit": "none"})}), 10)


@pytest.mark.waits
@pytest.mark.parametrize("kind", SETTINGS)
def test_right_code_holds_for_every_kind_of_task(kind: str, run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run = of_kind(run, kind)
    records = [dict(RECORDS[kind][n % 2]) for n in range(12)] + [run.task.made_up(0, n, 9) for n in range(12)]
    found = _audit(run, records, monkeypatch, 40)
    assert found.view.bound < _LITTLE
    assert [np.isfinite(attack.hits) for attack in found.view.attacks] == [True, True]


@pytest.mark.waits
def test_a_run_without_its_noise_is_refuted_on_a_real_base(monkeypatch: pytest.MonkeyPatch) -> None:
    run = locked(load(Path("questions"), SMALL), Checked())
    real = noise.standard_normals
    monkeypatch.setattr(noise, "standard_normals", lambda coins, count: 0 * real(coins, count))
    found = audit_texts(run, 300, chance=np.random.default_rng(1))
    assert found.view.stated <= 0.2 < found.view.bound
