"""Membership by loss: what attacks count, and whose records they may look at."""

import json
from pathlib import Path

import numpy as np
import pytest

from confide.common.config.run import load_run, lock
from confide.common.errors import InputError
from confide.common.model.adapter import get_state
from confide.common.model.warm_model import WarmModel
from confide.simulations.audit import membership
from confide.simulations.audit.membership import Membership, attack_finished, hits_at
from confide.simulations.audit.shadows import Person, Pool, Shadows
from confide.simulations.studies.reruns import unit_losses


def test_hits_are_counted_above_the_threshold_that_spares_the_outsiders() -> None:
    outsiders = np.arange(100.0)
    members = np.array([98.5, 99.5, 10.0, 0.5])
    assert hits_at(members, outsiders, np.array([0.0, 0.01, 0.015, 1.0])).tolist() == [0.25, 0.5, 0.5, 1.0]


def test_the_sentence_names_the_bound_and_the_best_attack() -> None:
    found = Membership(10, 10, {"low loss": 0.013, "other": 0.01}, {}, 0.0457, [])
    assert found.sentence() == (
        "an attacker who accuses 1% of outsiders finds at most 4.6% of members; our best attack found 1.3%"
    )


def test_the_sentence_names_those_who_may_collude_where_noise_is_shared() -> None:
    found = Membership(10, 10, {"low loss": 0.013}, {}, 0.0451, [], colluding=3)
    assert "4.6% of members, if at most 3 members of a sum collude; our best" in found.sentence()


@pytest.fixture
def finished(run_file: Path, model: WarmModel, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A finished run of twenty members, whose losses are 0, and twenty outsiders, whose losses are 1."""
    run = lock(load_run(run_file), "0" * 64)
    people = [Person("a", [], [], member) for member in [True] * 20 + [False] * 20]
    states = {"start": [0.0] * 20 + [1.0] * 20, "finished": [0.0] * 20 + [1.0] * 20}
    monkeypatch.setattr(membership, "run_of", lambda folder: run)
    monkeypatch.setattr(membership, "load_adapter", lambda folder: (run, model))
    monkeypatch.setattr(membership, "warm_model", lambda run, speed: model)
    monkeypatch.setattr(membership, "get_state", lambda module: "finished")
    monkeypatch.setattr(membership, "initial_state", lambda run, model: "start")
    monkeypatch.setattr(membership, "pool_of", lambda run, model: Pool(run, people))
    monkeypatch.setattr(Pool, "losses", lambda self, state: np.array(states[state]))
    return states["finished"]


def test_a_model_that_knows_its_members_gives_them_away(finished: list[float]) -> None:
    found = attack_finished(Path())
    assert (found.members, found.outsiders) == (20, 20)
    assert found.hits == {"low loss": 1.0, "loss against the start": 0.0}
    assert found.most_hits < 0.1


def test_members_and_outsiders_in_each_other_s_place_are_found_by_nobody(finished: list[float]) -> None:
    finished[:] = [1.0] * 20 + [0.0] * 20
    assert attack_finished(Path()).hits["low loss"] == 0.0


def test_the_cost_of_shadow_runs_is_told_before_they_start(
    finished: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = [{"round": 1, "seconds": 20.0}, {"round": 2, "seconds": 30.0}, {"round": 2, "seconds": 40.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rounds), encoding="utf-8")
    told: list[str] = []
    half = np.arange(40) % 2 == 0
    halves = np.stack([half, ~half])

    def carried_out(pool: Pool, count: int, folder: Path, tell: object) -> Shadows:
        assert len(told) == 1
        return Shadows(np.where(halves, 0.1, 1.0) + np.arange(40) / 400, halves)

    monkeypatch.setattr(membership, "shadow_runs", carried_out)
    found = attack_finished(tmp_path, 2, told.append)
    assert "2 shadow runs of about 60 s each" in told[0]
    assert "2 minutes in all" in told[0]
    assert found.hits["likelihood ratio (LiRA)"] == 1.0
    assert found.as_json()["shadow_runs"] == 2


def test_an_odd_number_of_shadow_runs_is_refused(finished: list[float]) -> None:
    with pytest.raises(InputError, match="--shadows 3 must be even"):
        attack_finished(Path(), 3)


def test_losses_are_means_of_a_unit_s_examples(model: WarmModel) -> None:
    examples = [{"input_ids": [2, number, number + 1, 3], "label": number % 2} for number in range(5, 9)]
    state = get_state(model.module)
    alone = unit_losses(model, [[example] for example in examples], state)
    together = unit_losses(model, [examples[:3], examples[3:]], state)
    assert together == pytest.approx([alone[:3].mean(), alone[3]], rel=1e-5)


def test_private_records_are_not_attacked(run_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run.lock.toml").write_text(run_file.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match="only on texts that packages carry"):
        membership.run_of(tmp_path)


def test_a_folder_without_a_locked_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no run\.lock\.toml"):
        membership.run_of(tmp_path)
