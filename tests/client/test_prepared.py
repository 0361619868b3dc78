"""What a client prepares once a run (encoded units) belongs to that run, to that site and to no other."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.coins import TestCoins
from support.installations import Asking, kinds, update_of, write_records, write_site
from support.sites import make_records

from confide.client import answers
from confide.client.answers import Client
from confide.client.site import Site, open_site
from confide.common.models import hash_model
from confide.common.run_config import RunConfig, lock

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
def test_another_run_under_the_same_lineage_finds_nothing_prepared_for_the_first(
    make_run: MakeRun, base_folder: Path, three_labels: Site, offered: bool
) -> None:
    """Labels of the first run, used in the second, would end a round whenever a record of class c is drawn."""
    client = Client(coins=lambda: TestCoins(0))
    for name, labels in (("test", ["a", "b", "c"]), ("small", ["a", "b"])):
        run = _locked(make_run, base_folder, labels, study={"name": name})
        asking = Asking(run, lambda: three_labels, client)
        if offered:
            assert kinds(asking.offer()) == ["accepted"]
        assert update_of(asking.update()).envelope.plan_sha256 == run.sha256()


def test_the_same_plan_with_other_labels_in_the_same_study_is_prepared_anew(
    make_run: MakeRun, base_folder: Path, three_labels: Site
) -> None:
    client = Client(coins=lambda: TestCoins(0))
    for number, labels in enumerate((["a", "b", "c"], ["a", "b"]), start=1):
        asking = Asking(_locked(make_run, base_folder, labels), lambda: three_labels, client)
        assert kinds(asking.update(number)) == ["update"]
        [(_, shares)] = client.shares.values()
        assert shares.training.num_units == 2 * len(labels)


def test_joining_reads_the_records_anew_and_a_round_does_not(
    make_run: MakeRun, base_folder: Path, three_labels: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes between the rounds of a run would let its own change show."""
    client, path = Client(coins=lambda: TestCoins(0)), three_labels.config.dataset.path
    asking = Asking(_locked(make_run, base_folder, ["a", "b", "c"]), lambda: three_labels, client)
    assert kinds(asking.offer()) == ["accepted"]
    write_records(path, make_records(2))
    prepared: list[bool] = []

    def prepare(*rest: object, joining: bool) -> object:
        prepared.append(joining)
        return real(*rest, joining=joining)  # type: ignore[arg-type]

    real = answers.prepare
    monkeypatch.setattr(answers, "prepare", prepare)
    assert kinds(asking.update(1)) == kinds(asking.update(2)) == ["update"]
    assert prepared == []
    assert kinds(asking.offer()) == ["accepted"]
    assert prepared == [True]


def test_two_institutions_of_one_client_share_nothing(make_run: MakeRun, base_folder: Path, tmp_path: Path) -> None:
    """In a simulation one client answers for all."""
    client = Client(coins=lambda: TestCoins(0))
    run = _locked(make_run, base_folder, ["negative", "positive"])
    for name, count in (("st-mary", 4), ("st-jude", 7)):
        settings = {"validation_fraction": 0.0}
        site = open_site(write_site(tmp_path / name, make_records(count), name=name, dataset=settings))
        assert kinds(Asking(run, lambda site=site: site, client).update()) == ["update"]  # type: ignore[misc]
    assert [shares.training.num_units for _, shares in client.shares.values()] == [4, 7]
