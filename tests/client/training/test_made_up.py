"""A rehearsal at an institution: answered as an offer is, computed as a round is, and no record or budget in it."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from support.coins import TestCoins
from support.installations import Asking, kinds, update_of, write_site
from support.sites import make_records

from confide.client.site.installation import Site, open_site
from confide.client.training import made_up as rehearsal_module
from confide.client.training.batches import BatchedUnits
from confide.client.training.local_steps import LocalWork
from confide.client.training.made_up import rehearse
from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig, lock, make_plan
from confide.common.data.batches import length
from confide.common.model import warm_model as warm_model_module
from confide.common.model.base_models import hash_model
from confide.common.protocol.answers import Rehearsed
from confide.common.protocol.gate import load_state, update_norm_bound
from confide.common.tensors import State, schema_of

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    run = make_run(local={"sampling_probability": 1.0, "nominal_units": 20}, federation={"num_rounds": 3})
    return lock(run, hash_model(base_folder))


class Rehearsing(Asking):
    def rehearse(self, **changes: Any) -> RecordDict:
        return self.send(self.ask(1, **changes), "query.rehearse")


def _site(folder: Path, **sections: dict[str, Any]) -> Site:
    """An institution whose records cannot be read: their file is not there."""
    path = write_site(folder, **sections)
    (folder / "notes.jsonl").unlink()
    return open_site(path)


def _left_behind(folder: Path) -> dict[str, bytes]:
    """Everything in the state folder but SQLite's own bookkeeping."""
    files = (path for path in (folder / "state").rglob("*") if path.is_file() and path.suffix not in (".db-shm",))
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def test_a_site_without_its_records_rehearses_and_nothing_is_charged_or_kept(run: RunConfig, tmp_path: Path) -> None:
    site = _site(tmp_path)
    asking = Rehearsing(run, lambda: site)
    before = _left_behind(tmp_path)
    for _ in range(2):
        rehearsed = Rehearsed.from_content(asking.rehearse())
        assert rehearsed.acceptance.update_key == site.identity.public_hex()
    assert _left_behind(tmp_path) == before
    assert site.ledger.rows() == []
    assert site.outbox.names() == []
    assert kinds(asking.update()) == ["declined"], "a round needs the records"


def test_an_open_study_is_charged_nothing_for_it(run: RunConfig, tmp_path: Path) -> None:
    site = open_site(write_site(tmp_path))
    asking = Rehearsing(run, lambda: site)
    receipt = update_of(asking.update(1)).receipt()
    rows = site.ledger.rows()
    for number in range(5):  # more than the plan has steps
        assert kinds(asking.rehearse(round=number, receipt=receipt)) == ["accepted", "rehearsed"]
    assert site.ledger.rows() == rows
    assert len(site.outbox.names()) == 1
    assert [kinds(asking.update(number)) for number in (2, 3)] == [["update"]] * 2, "the plan's steps are all there"


def test_its_update_passes_the_gate_of_a_server(run: RunConfig, tmp_path: Path) -> None:
    asking = Rehearsing(run, lambda: _site(tmp_path))
    shapes = schema_of(asking.state)
    bound = update_norm_bound(make_plan(run, 20), shapes, run.local.steps, run.local.learning_rate)
    state = load_state(Rehearsed.from_content(asking.rehearse()).payload, shapes, bound)
    assert all(value.any() for value in state.values()), "it has the plan's noise"


def test_no_record_and_no_secret_of_the_institution_is_in_its_update(run: RunConfig, tmp_path: Path) -> None:
    """With the same coins it is the same, whoever rehearses, on whatever records."""
    payloads = set()
    for name, count in (("st-mary", 20), ("st-jude", 3), ("st-anne", 0)):
        site = open_site(write_site(tmp_path / name, make_records(count), name=name))
        asking = Rehearsing(run, lambda site=site: site, ClientProcess(coins=lambda: TestCoins(3)))  # type: ignore[misc]
        asking.update(1)
        payloads.add(Rehearsed.from_content(asking.rehearse()).payload)
    assert len(payloads) == 1


def test_it_takes_the_way_of_a_round(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same training, same plan, as many units as declared, each as long as the task allows, from the public seed."""
    seen: list[tuple[LocalWork, BatchedUnits]] = []
    train = rehearsal_module.train

    def spy(work: LocalWork, model: Any, units: BatchedUnits, coins: Any) -> State:
        seen.append((work, units))
        return train(work, model, units, coins)

    monkeypatch.setattr(rehearsal_module, "train", spy)
    local = run.local.model_copy(update={"steps": 2})
    run = run.model_copy(update={"local": local})
    asking = Rehearsing(run, lambda: _site(tmp_path))
    assert kinds(asking.rehearse()) == ["accepted", "rehearsed"]
    [(work, units)] = seen
    assert work.plan == make_plan(run, 20)
    assert work.local_steps == 2
    assert all(np.array_equal(work.received[name], asking.state[name]) for name in asking.state)
    assert units.num_units == 20
    assert {length(example) for unit in units.table.units for example in unit} == {run.task.max_length}
    texts = [run.task.made_up(7, number)["text"] for number in range(20)]
    assert len(set(texts)) == 20
    assert texts[3] == run.task.made_up(7, 3)["text"] != run.task.made_up(8, 3)["text"]
    assert all(run.task.check(run.task.made_up(7, number)) is None for number in range(5))


def test_who_rehearses_is_given_no_site(run: RunConfig) -> None:
    """The function sees a run, a plan, weights, a model and coins; its file imports nothing that reads or charges."""
    assert list(inspect.signature(rehearse).parameters) == [
        *("run", "plan", "received", "model", "coins", "tokens_per_micro_batch")
    ]
    tree = ast.parse(inspect.getsource(rehearsal_module))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    private = ("site", "site_config", "preparation", "people", "ledger", "outbox", "release", "answers", "identity")
    assert not imported & {f"confide.client.{name}" for name in private}
    assert "confide.common.data.records" not in imported
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]


# The answer is that to an offer


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"studies": []}, "declined"),
        ({"max_rounds": 2}, "declined"),
        ({"base_models": ["0" * 64]}, "declined"),
        ({"require_approval": True}, "waiting"),
        ({"require_approval": True, "max_rounds": 2}, "waiting"),
        ({"require_approval": True, "studies": []}, "declined"),
    ],
)
def test_what_an_offer_would_be_answered_is_answered(
    run: RunConfig, tmp_path: Path, policy: dict[str, Any], expected: str
) -> None:
    site = open_site(write_site(tmp_path, policy=policy))
    asking = Rehearsing(run, lambda: site)
    assert kinds(asking.rehearse()) == kinds(asking.offer()) == [expected]
    assert site.ledger.rows() == []


def test_a_budget_that_is_spent_or_pinned_declines(run: RunConfig, tmp_path: Path) -> None:
    site = open_site(write_site(tmp_path))
    Rehearsing(run, lambda: site).offer()
    for changes in ({"clip_norm": 2.0}, {"noise_multiplier": 0.9}):
        changed = run.model_copy(update={"privacy": run.privacy.model_copy(update=changes)})
        assert kinds(Rehearsing(changed, lambda: site).rehearse()) == ["declined"], changes
    site.ledger.retire()
    assert kinds(Rehearsing(run, lambda: site).rehearse()) == ["declined"]


def test_a_model_that_is_not_here_declines(run: RunConfig, tmp_path: Path) -> None:
    asking = Rehearsing(run, lambda: _site(tmp_path))
    missing = run.model_copy(update={"model": run.model.model_copy(update={"base": str(tmp_path / "none")})})
    asking.run = missing
    assert kinds(asking.rehearse()) == ["declined"]


def test_past_its_deadline_or_with_other_weights_it_is_declined(run: RunConfig, tmp_path: Path) -> None:
    site = _site(tmp_path)
    asking = Rehearsing(run, lambda: site, ClientProcess(now=lambda: 1000.0))
    assert kinds(asking.rehearse(deadline_unix=999.0)) == ["declined"]
    asking.state = {name: value * np.nan for name, value in asking.state.items()}
    assert kinds(asking.rehearse()) == ["declined"]


def test_after_an_error_in_a_step_the_model_is_dropped(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*rest: object) -> State:
        raise RuntimeError("in mid-step")

    asking = Rehearsing(run, lambda: _site(tmp_path))
    monkeypatch.setattr(rehearsal_module, "train", fail)
    assert kinds(asking.rehearse()) == ["declined"]
    assert not warm_model_module._warm
