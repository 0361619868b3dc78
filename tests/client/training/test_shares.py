"""What a client prepares once a run (encoded units) belongs to that run, to that site and to no other."""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.coins import TestCoins
from support.installations import Asking, kinds, update_of, write_site
from support.sites import make_records

from confide.client.site.installation import Site, open_site
from confide.client.training import shares
from confide.client.training.shares import ClientProcess, file_state
from confide.common.config.run import RunConfig, lock
from confide.common.data.shapes import one_row_each
from confide.common.model.base_models import hash_model

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def three_labels(tmp_path: Path) -> Site:
    """A site with records of three classes, all of them for training."""
    records = [{**record, "label": "abc"[number % 3]} for number, record in enumerate(make_records(6))]
    return open_site(write_site(tmp_path, records, dataset={"validation_fraction": 0.0}))


def _locked(make_run: MakeRun, base: Path, labels: list[str], **sections: dict[str, object]) -> RunConfig:
    local = {"sampling_probability": 1.0, "nominal_units": 20}
    return lock(make_run(task={"labels": labels}, local=local, **sections), hash_model(base))


@pytest.mark.parametrize("offered", [False, True])
def test_another_run_of_one_lineage_finds_nothing_prepared_for_the_first(
    make_run: MakeRun, base_folder: Path, three_labels: Site, offered: bool
) -> None:
    """Labels of the first run, used in the second, would end a round whenever a record of class c is drawn."""
    client = ClientProcess(coins=lambda: TestCoins(0))
    for name, labels in (("test", ["a", "b", "c"]), ("small", ["a", "b"])):
        run = _locked(make_run, base_folder, labels, study={"name": name})
        asking = Asking(run, lambda: three_labels, client)
        if offered:
            assert kinds(asking.offer()) == ["accepted"]
        assert update_of(asking.update()).envelope.run_sha256 == run.sha256()


@pytest.mark.waits
def test_the_same_plan_with_other_labels_in_the_same_study_is_prepared_anew(
    make_run: MakeRun, base_folder: Path, three_labels: Site
) -> None:
    client = ClientProcess(coins=lambda: TestCoins(0))
    for number, labels in enumerate((["a", "b", "c"], ["a", "b"]), start=1):
        asking = Asking(_locked(make_run, base_folder, labels), lambda: three_labels, client)
        assert kinds(asking.update(number)) == ["update"]
        [made] = client.shares.values()
        assert made.shares.training.num_units == 2 * len(labels)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "others"},
        {"labels": {"a": "c"}},
        {"max_chars": 3},
        {"validation_fraction": 0.9},
        {"columns": {"text": "x"}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_round_under_new_dataset_settings_finds_nothing_of_the_old(
    make_run: MakeRun, base_folder: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Nothing prepared counts: site.toml may name other people since, whose ledger is charged; the file is the same."""
    records = [{**record, "label": "abc"[number % 3], "x": "other"} for number, record in enumerate(make_records(6))]
    client, run = ClientProcess(coins=lambda: TestCoins(0)), _locked(make_run, base_folder, ["a", "b", "c"])
    write_site(tmp_path, records, dataset={"validation_fraction": 0.0})
    before = file_state(tmp_path / "notes.jsonl")
    made = []
    for number, settings in enumerate(({}, changed), start=1):
        config = {"validation_fraction": 0.0, **settings}
        path = write_site(tmp_path / str(number), records, dataset={**config, "path": str(tmp_path / "notes.jsonl")})
        assert kinds(Asking(run, lambda path=path: open_site(path), client).update(number)) == ["update"]  # type: ignore[misc]
        made.append(client.shares["st-mary"])
    assert file_state(tmp_path / "notes.jsonl") == before
    assert made[0].shares is not made[1].shares


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every time that records are read and encoded, and whether that was to join a run."""
    calls: list[bool] = []

    def prepare(*rest: object, joining: bool) -> object:
        calls.append(joining)
        return real(*rest, joining=joining)  # type: ignore[arg-type]

    real = shares.prepare
    monkeypatch.setattr(shares, "prepare", prepare)
    return calls


def test_joining_reads_the_records_anew_and_a_round_only_a_changed_file(
    make_run: MakeRun, base_folder: Path, three_labels: Site, prepared: list[bool]
) -> None:
    client, path = ClientProcess(coins=lambda: TestCoins(0)), three_labels.config.dataset.path
    asking = Asking(_locked(make_run, base_folder, ["a", "b", "c"]), lambda: three_labels, client)
    assert kinds(asking.offer()) == ["accepted"]
    assert kinds(asking.update(1)) == kinds(asking.update(2)) == ["update"]
    assert prepared == [True]
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    assert kinds(asking.update(3)) == kinds(asking.update(4)) == ["update"]
    assert prepared == [True, False]
    assert client.shares["st-mary"].shares.training.num_units == 5
    assert kinds(asking.offer()) == ["accepted"]
    assert prepared == [True, False, True]


def test_a_patient_who_is_taken_out_is_out_of_the_next_round_at_any_file_date(
    make_run: MakeRun, base_folder: Path, three_labels: Site
) -> None:
    """The same size and the same date: a record that was blanked, in a file that was moved here with its old date."""
    client, path = ClientProcess(coins=lambda: TestCoins(0)), three_labels.config.dataset.path
    asking = Asking(_locked(make_run, base_folder, ["a", "b", "c"]), lambda: three_labels, client)
    assert kinds(asking.offer()) == ["accepted"]
    before, text = path.stat(), path.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    other = path.with_suffix(".new")
    other.write_text(text.replace(first, " " * len(first)), encoding="utf-8")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert kinds(asking.update()) == ["update"]
    assert client.shares["st-mary"].shares.training.num_units == 5


def _turn_stale(path: Path, patch: pytest.MonkeyPatch) -> None:
    """The file lies on a share whose server was started anew."""
    for name in ("stat", "read_bytes"):
        real = getattr(Path, name)

        def fail(here: Path, real: Callable[..., Any] = real, **named: Any) -> Any:
            if here == path:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
            return real(here, **named)

        patch.setattr(Path, name, fail)


@pytest.mark.parametrize(
    "spoil", [lambda path, _: path.unlink(), lambda path, _: (path.unlink(), path.mkdir()), _turn_stale]
)
def test_a_file_that_cannot_be_read_in_the_middle_of_a_run_decides_nothing(
    make_run: MakeRun,
    base_folder: Path,
    three_labels: Site,
    spoil: Callable[[Path, pytest.MonkeyPatch], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was read before counts on, the reason is kept here, and the file counts again once it can be read."""
    reasons: list[BaseException] = []
    site = three_labels.with_report(reasons.append)
    client, path = ClientProcess(coins=lambda: TestCoins(0)), site.config.dataset.path
    asking = Asking(_locked(make_run, base_folder, ["a", "b", "c"]), lambda: site, client)
    assert kinds(asking.offer()) == ["accepted"]
    text = path.read_text(encoding="utf-8")
    with monkeypatch.context() as patch:
        spoil(path, patch)
        assert kinds(asking.update(1)) == ["update"]
    assert client.shares["st-mary"].shares.training.num_units == 6
    assert [str(path) in str(reason) for reason in reasons] == [True]
    shutil.rmtree(path, ignore_errors=True)
    path.write_text(text.partition("\n")[2], encoding="utf-8")
    assert kinds(asking.update(2)) == ["update"]
    assert client.shares["st-mary"].shares.training.num_units == 5
    assert len(reasons) == 1


@pytest.mark.waits
def test_a_file_that_cannot_be_read_prepares_no_other_run(
    make_run: MakeRun, base_folder: Path, three_labels: Site
) -> None:
    """What was encoded for one run must not stand in for another, whose labels differ."""
    client = ClientProcess(coins=lambda: TestCoins(0))
    first = _locked(make_run, base_folder, ["a", "b", "c"])
    assert kinds(Asking(first, lambda: three_labels, client).offer()) == ["accepted"]
    three_labels.config.dataset.path.unlink()
    other = _locked(make_run, base_folder, ["a", "b"], study={"name": "small"})
    assert kinds(Asking(other, lambda: three_labels, client).update()) == ["declined"]
    assert kinds(Asking(first, lambda: three_labels, client).offer()) == ["declined"]


def test_two_institutions_of_one_client_share_nothing(make_run: MakeRun, base_folder: Path, tmp_path: Path) -> None:
    """In a simulation one client answers for all."""
    client = ClientProcess(coins=lambda: TestCoins(0))
    run = _locked(make_run, base_folder, ["negative", "positive"])
    for name, count in (("st-mary", 4), ("st-jude", 7)):
        settings = {"validation_fraction": 0.0}
        site = open_site(write_site(tmp_path / name, make_records(count), name=name, dataset=settings))
        assert kinds(Asking(run, lambda site=site: site, client).update()) == ["update"]  # type: ignore[misc]
    assert [made.shares.training.num_units for made in client.shares.values()] == [4, 7]


def test_a_finished_run_is_answered_once_it_is_joined_again_and_no_other_is(
    make_run: MakeRun, base_folder: Path, three_labels: Site
) -> None:
    """An offer that is refused opens nothing: the next round would tell whether the data file can be read again."""
    client, path = ClientProcess(coins=lambda: TestCoins(0)), three_labels.config.dataset.path
    runs = [_locked(make_run, base_folder, ["a", "b", "c"], study={"name": name}) for name in ("test", "small")]
    first, second = (Asking(run, lambda: three_labels, client) for run in runs)
    for asking, run in ((first, runs[0]), (second, runs[1])):
        assert kinds(asking.offer()) == ["accepted"]
        client.finish("st-mary", run.sha256())
    text = path.read_text(encoding="utf-8")
    path.unlink()
    assert kinds(first.offer()) == ["declined"]
    path.write_text(text, encoding="utf-8")
    assert kinds(first.update()) == ["declined"]
    assert kinds(first.offer()) == ["accepted"]
    assert kinds(first.update()) == ["update"]
    assert kinds(second.update()) == ["declined"]


def test_shares_that_were_made_before_take_the_shapes_that_are_tried_now(
    make_run: MakeRun, base_folder: Path, three_labels: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server can offer another run between two rounds, for whose base the client takes fewer threads."""
    client, run = ClientProcess(), _locked(make_run, base_folder, ["a", "b", "c"])
    _, joined = shares.shares_of(run, three_labels, client, joining=True)
    alone = one_row_each(64)
    assert joined.training.shapes != alone
    monkeypatch.setattr(shares, "tried_shapes", lambda model, tokens: alone)
    _, later = shares.shares_of(run, three_labels, client, joining=False)
    assert later.training.shapes == alone
    assert later.training.table is joined.training.table
    monkeypatch.setattr(shares, "file_state", lambda path: "changed")
    monkeypatch.setattr(shares, "prepare", lambda *rest, **more: 1 / 0)
    _, kept = shares.shares_of(run, replace(three_labels, report=lambda error: None), client, joining=False)
    assert kept.training.shapes == alone
