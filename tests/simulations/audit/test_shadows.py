"""Shadow runs: who is a member, whose halves train, and what is kept."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.sites import make_records

from confide.client.training import shares
from confide.common.config.run import RunConfig, lock
from confide.common.errors import InputError
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import warm_model
from confide.simulations.audit import shadows
from confide.simulations.audit.shadows import Pool, pool_of, shadow_runs
from confide.simulations.studies.reruns import rerun

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def pool(make_run: MakeRun, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Three institutions of ten records for the run and two for its test; a fifth of the ten is held out."""
    records = make_records(36)
    private = {name: records[place:30:3] for place, name in enumerate("abc")}
    public = {name: records[30 + place :: 3] for place, name in enumerate("abc")}
    monkeypatch.setattr(shadows, "load_institutions", lambda run: SimpleNamespace(private=private, public=public))
    run = make_run(
        federation={"num_rounds": 1, "min_clients": 3},
        simulation={"data": "vader", "validation_fraction": 0.2},
    )
    run = lock(run, hash_model(base_folder))
    return pool_of(run, warm_model(run, run.speed))


def _nothing_is_trained(patch: pytest.MonkeyPatch) -> list[dict[str, list[object]]]:
    """Note what would be trained on."""
    trained: list[dict[str, list[object]]] = []

    def carried_out(run: RunConfig, private: dict[str, list[object]]) -> object:
        assert run.simulation is not None
        assert run.simulation.validation_fraction == 0.0, "a held-out unit that is in would not be trained on"
        trained.append(private)
        return SimpleNamespace(finished=len(trained))

    patch.setattr(shadows, "rerun", carried_out)
    patch.setattr(Pool, "losses", lambda self, state: np.full(len(self.people), float(state)))
    return trained


def test_members_are_those_that_clients_train_on(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: set[str] = set()
    real = shares.make_units

    def make_units(records: list[dict[str, str]], *rest: Any) -> Any:
        trained.update(record["text"] for record in records)
        return real(records, *rest)

    monkeypatch.setattr(shares, "make_units", make_units)
    rerun(pool.run, shadows.load_institutions(pool.run).private)
    assert {person.records[0]["text"] for person in pool.people if person.member} == trained
    assert 15 <= len(trained) < 30, "some of the thirty private records are held out"
    assert len(pool.people) == 36


def test_each_unit_is_in_half_of_the_shadow_runs_and_the_halves_differ(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained = _nothing_is_trained(monkeypatch)
    found = shadow_runs(pool, 6, tmp_path / "shadows", lambda line: None)
    assert found.inside.sum(axis=0).tolist() == [3] * 36
    assert len({row.tobytes() for row in found.inside}) == 6
    for inside, private in zip(found.inside, trained, strict=True):
        expected = [person.records[0] for person, chosen in zip(pool.people, inside, strict=True) if chosen]
        assert [record for name in "abc" for record in private[name]] == expected
    shares = [found.inside[:, members].mean() for members in (pool.members, ~pool.members)]
    assert shares == [0.5, 0.5], "members of the finished run are in as often as its outsiders"


def test_an_attack_goes_on_where_it_stopped(pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained = _nothing_is_trained(monkeypatch)
    first = shadow_runs(pool, 2, tmp_path / "shadows", lambda line: None)
    more = shadow_runs(pool, 4, tmp_path / "shadows", lambda line: None)
    assert len(trained) == 4
    assert (more.inside[:2] == first.inside).all()
    assert more.losses[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_shadow_runs_of_another_run_are_refused(pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _nothing_is_trained(monkeypatch)
    shadow_runs(pool, 2, tmp_path / "shadows", lambda line: None)
    other = Pool(pool.run, pool.people[1:])
    with pytest.raises(InputError, match="a shadow run of another run"):
        shadow_runs(other, 2, tmp_path / "shadows", lambda line: None)


def test_a_shadow_run_is_a_run_of_the_product(pool: Pool) -> None:
    losses = pool.losses(pool.trained_on(pool.half(np.random.default_rng(0))))
    assert losses.shape == (36,)
    assert np.isfinite(losses).all()
