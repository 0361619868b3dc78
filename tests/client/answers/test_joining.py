"""A server that sends no offer gets past nothing that joining checks: the first round of a run joins it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.installations import Asking, kinds, write_records, write_site
from support.sites import make_records

from confide.client.answers import proposed_runs
from confide.client.answers.proposed_runs import is_joined, keep_offer, note_joined
from confide.client.site.installation import Site, open_site
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model

MakeRun = Callable[..., RunConfig]
RECORDS = make_records(30)


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"nominal_units": 20}, federation={"num_rounds": 6}), hash_model(base_folder))


def _site(folder: Path, name: str, records: list[dict[str, Any]]) -> Path:
    state = {"dir": str(folder / "state"), "anchor": str(folder / "anchor")}
    return write_site(folder / name, records, state=state, dataset={"id": name})


def _charged(site: Site) -> list[str]:
    return [row["kind"] for row, _ in site.ledger.rows() if row["kind"] in ("open", "reserve")]


def test_people_of_another_dataset_are_refused_without_an_offer(run: RunConfig, tmp_path: Path) -> None:
    """They would be charged against two caps."""
    first = open_site(_site(tmp_path, "one", RECORDS[:20]))
    second = open_site(_site(tmp_path, "two", RECORDS[15:]))
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"]
    assert kinds(Asking(run, lambda: second).update()) == ["declined"]
    assert _charged(second) == []


def test_a_dataset_id_that_changes_in_mid_run_is_joined_anew(run: RunConfig, tmp_path: Path) -> None:
    """Its ledger is a new one, with a whole cap for the same people."""
    path = _site(tmp_path, "one", RECORDS)
    asking = Asking(run, lambda: open_site(path))
    assert kinds(asking.offer()) == ["accepted"]
    assert kinds(asking.update()) == ["update"]
    path.write_text(path.read_text(encoding="utf-8").replace('id = "one"', 'id = "other"'), encoding="utf-8")
    assert kinds(asking.update(2)) == ["declined"]
    assert _charged(open_site(path)) == []


def test_another_run_of_an_open_study_is_joined_in_its_own_right(run: RunConfig, tmp_path: Path) -> None:
    """Another kind of task may name people of another dataset, whom the first run's columns did not."""
    first = open_site(_site(tmp_path, "one", RECORDS[:10]))
    path = _site(tmp_path, "two", RECORDS[10:])
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"]
    assert kinds(Asking(run, lambda: open_site(path)).offer()) == ["accepted"]
    write_records(tmp_path / "two" / "notes.jsonl", RECORDS[5:])
    other = run.model_copy(update={"study": run.study.model_copy(update={"seed": run.study.seed + 1})})
    assert kinds(Asking(other, lambda: open_site(path)).update()) == ["declined"]
    assert kinds(Asking(run, lambda: open_site(path)).update()) == ["update"], "this one was joined, and is not stopped"


def test_what_one_dataset_has_joined_another_has_not(run: RunConfig, tmp_path: Path) -> None:
    """Both keep their marks in one state folder, and both have the study open: the second for an older run."""
    older = run.model_copy(update={"study": run.study.model_copy(update={"seed": run.study.seed + 1})})
    first, path = open_site(_site(tmp_path, "one", RECORDS[:20])), _site(tmp_path, "two", RECORDS[20:])
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"]
    assert kinds(Asking(older, lambda: open_site(path)).offer()) == ["accepted"]
    write_records(tmp_path / "two" / "notes.jsonl", RECORDS[15:])
    assert kinds(Asking(run, lambda: open_site(path)).update()) == ["declined"]


def test_another_file_under_the_same_id_is_joined_anew(run: RunConfig, tmp_path: Path) -> None:
    """Its people may be counted under another id."""
    first = open_site(_site(tmp_path, "one", RECORDS[:15]))
    path = _site(tmp_path, "two", RECORDS[15:])
    asking = Asking(run, lambda: open_site(path))
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"]
    assert kinds(asking.offer()) == ["accepted"]
    assert kinds(asking.update()) == ["update"]
    others = str(tmp_path / "one" / "notes.jsonl")
    path.write_text(path.read_text(encoding="utf-8").replace('"notes.jsonl"', f'"{others}"'), encoding="utf-8")
    assert kinds(asking.update(2)) == ["declined"]


def _runs(run: RunConfig, number: int) -> list[RunConfig]:
    studies = [run.study.model_copy(update={"seed": seed}) for seed in range(100, 100 + number)]
    return [run.model_copy(update={"study": study}) for study in studies]


def test_runs_that_only_wait_push_no_mark_out(run: RunConfig, tmp_path: Path) -> None:
    """A server can propose as many as it likes; the first round would join again, and records decide about that."""
    dataset = open_site(_site(tmp_path, "one", RECORDS)).config.dataset
    keep_offer(tmp_path, run)
    note_joined(tmp_path, run, dataset)
    for other in _runs(run, 21):
        keep_offer(tmp_path, other)
    assert is_joined(tmp_path, run, dataset)


def test_marks_do_not_fill_a_disk(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposed_runs, "_KEPT_MARKS", 3)
    dataset = open_site(_site(tmp_path, "one", RECORDS)).config.dataset
    for number, each in enumerate(_runs(run, 5)):
        note_joined(tmp_path, each, dataset)
        for mark in tmp_path.glob(f"{each.sha256()}*"):
            os.utime(mark, (number, number))
    assert [is_joined(tmp_path, each, dataset) for each in _runs(run, 5)] == [False, False, True, True, True]


def test_a_line_in_doubt_is_refused_without_an_offer(run: RunConfig, tmp_path: Path) -> None:
    path = write_site(tmp_path, RECORDS)
    notes = tmp_path / "notes.jsonl"
    whole = notes.read_text(encoding="utf-8")
    notes.write_text(whole + "{", encoding="utf-8")
    asking = Asking(run, lambda: open_site(path))
    assert kinds(asking.update()) == ["declined"]
    notes.write_text(whole, encoding="utf-8")
    assert kinds(asking.update()) == ["update"], "the first round joins"
    notes.write_text(whole + "{", encoding="utf-8")
    asking.restart(lambda: open_site(path))
    assert kinds(asking.update(2)) == ["update"]
