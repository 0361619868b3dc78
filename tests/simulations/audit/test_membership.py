"""Membership by loss: what attacks count, and whose records they may look at."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.sites import make_records

from confide.common.config.run import RunConfig, load_run
from confide.common.errors import InputError
from confide.common.model.warm_model import WarmModel
from confide.simulations.audit import membership
from confide.simulations.audit.membership import Membership, attack_finished, hits_at


def test_hits_are_counted_above_the_threshold_that_spares_the_outsiders() -> None:
    outsiders = np.arange(100.0)
    members = np.array([98.5, 99.5, 10.0, 0.5])
    assert hits_at(members, outsiders, np.array([0.0, 0.01, 0.015, 1.0])).tolist() == [0.25, 0.5, 0.5, 1.0]


def test_the_sentence_names_the_bound_and_the_best_attack() -> None:
    found = Membership(10, 10, {"low loss": 0.013, "other": 0.01}, {}, 0.0457, [])
    assert found.sentence() == (
        "an attacker who accuses 1% of outsiders finds at most 4.6% of members; our best attack found 1.3%"
    )


def test_a_model_that_knows_its_members_gives_them_away(
    run_file: Path, model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(run_file)
    sides = [[{"input_ids": [2, number, 3], "label": 0}] for number in range(5, 45)]
    monkeypatch.setattr(membership, "load_adapter", lambda folder: (run, model))
    monkeypatch.setattr(membership, "_simulation_of", lambda run, folder: run)
    monkeypatch.setattr(membership, "_sides", lambda run, model: (sides[:20], sides[20:]))
    known = np.append(np.zeros(20), np.ones(20))
    monkeypatch.setattr(membership, "_losses", lambda model, units, state: known)
    found = attack_finished(Path())
    assert (found.members, found.outsiders) == (20, 20)
    assert found.hits == {"low loss": 1.0, "loss against the start": 0.0}
    assert found.most_hits < 0.1


def test_losses_are_means_of_a_unit_s_examples(model: WarmModel) -> None:
    examples = [{"input_ids": [2, number, number + 1, 3], "label": number % 2} for number in range(5, 9)]
    state = membership.get_state(model.module)
    alone = membership._losses(model, [[example] for example in examples], state)
    together = membership._losses(model, [examples[:3], examples[3:]], state)
    assert together == pytest.approx([alone[:3].mean(), alone[3]], rel=1e-5)


def test_private_records_are_not_attacked(run_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run.lock.toml").write_text(run_file.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match="only on texts that packages carry"):
        membership._simulation_of(load_run(run_file), tmp_path)


def test_members_are_the_training_share(run_file: Path, model: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    records = make_records(60)

    class Found:
        private = {"a": records[:50]}  # noqa: RUF012
        public = {"a": records[50:]}  # noqa: RUF012

    monkeypatch.setattr(membership, "load_institutions", lambda run: Found)
    run: RunConfig = load_run(run_file)
    members, outsiders = membership._sides(run, model)
    held_out = 60 - len(members) - 10
    assert 0 < held_out < 15
    assert len(outsiders) == held_out + 10
    assert json.dumps(members) != json.dumps(outsiders)
