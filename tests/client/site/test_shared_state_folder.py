"""Two datasets in one state folder: nobody is counted under both, and in a round neither decides about the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.installations import Asking, kinds, update_of, write_records, write_site
from support.kinds import task_of
from support.sites import make_records

from confide.client.data.dataset_claims import People
from confide.client.data.units import names_of
from confide.client.site.installation import Site, open_site
from confide.client.training.shares import ClientProcess, prepare
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import WarmModel
from confide.common.tasks import Task

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def two(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """``two(first, second)``: site files of two datasets that share their state folder."""

    def write(first: list[dict[str, Any]], second: list[dict[str, Any]], **sections: Any) -> tuple[Path, Path]:
        state = {"dir": str(tmp_path / "state"), "anchor": str(tmp_path / "anchor")}
        dataset = sections.pop("dataset", {})
        return tuple(  # type: ignore[return-value]
            write_site(tmp_path / name, records, state=state, dataset={**dataset, "id": name}, **sections)
            for name, records in (("one", first), ("two", second))
        )

    return write


def _texts(site: Site, model: WarmModel, task: Task) -> set[str]:
    """Texts of all units that a round would use, in either share."""
    shares = prepare(site.data, site.config.compute, model, joining=False)
    examples = [example for unit in shares.training.table.units for example in unit]
    trained = {model.tokenizer.decode(example["input_ids"], skip_special_tokens=True) for example in examples}
    held = [model.task.examples(record, model.tokenizer)[0] for unit in shares.validation for record in unit]
    return trained | {model.tokenizer.decode(example["input_ids"], skip_special_tokens=True) for example in held}


GROUPED = {"unit": "group", "columns": {"group": "group"}}


def _by_group(run: RunConfig) -> RunConfig:
    return run.model_copy(update={"privacy": run.privacy.model_copy(update={"unit": "group"})})


def test_people_of_another_dataset_are_refused_at_joining(two: Any, run: RunConfig) -> None:
    records = make_records(30)
    first, second = (open_site(path) for path in two(records[:20], records[15:]))
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"]
    asking = Asking(run, lambda: second)
    assert kinds(asking.offer()) == ["declined"]
    assert second.ledger.account().number == 0, "nothing was charged"
    errors = (second.config.dataset.path.parent / "local" / "errors.log").read_text(encoding="utf-8")
    assert "dataset 'two' holds people of another dataset id" in errors


def test_in_a_round_no_record_of_another_dataset_decides_which_units_count(
    two: Any, run: RunConfig, model: WarmModel
) -> None:
    """Else one unit of the first would move as many units of the second, and the first's ledger is charged nothing."""
    records = make_records(30)
    first, second = (open_site(path) for path in two(records[:20], records[15:]))
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"]
    alone = open_site(write_site(second.config.dataset.path.parent / "alone", records[15:]))
    assert _texts(second, model, run.task) == _texts(alone, model, run.task)
    assert len(_texts(second, model, run.task)) == 15, "these people are counted in both ledgers"
    assert len(_texts(first, model, run.task)) == 20
    write_records(second.config.dataset.path, records[20:])
    asking = Asking(run, lambda: second)
    assert kinds(asking.offer()) == ["accepted"]
    write_records(second.config.dataset.path, records[15:])
    assert kinds(asking.update()) == ["update"], "a round is never stopped by a record"
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"], "the first keeps all of its own"
    assert kinds(Asking(run, lambda: second).offer()) == ["declined"], "found when it joins the next time"


@pytest.mark.parametrize("with_it", [False, True])
def test_a_text_of_another_dataset_that_enters_every_group_silences_none(
    tmp_path: Path, make_run: MakeRun, base_folder: Path, with_it: bool
) -> None:
    """It comes in mid-run: one unit of the records would have decided about six patients of the other dataset."""
    sentence = {"text": "No abnormality detected.", "label": "negative"}
    state = {"dir": str(tmp_path / "state"), "anchor": str(tmp_path / "anchor")}
    settings = {"declared_units": 20, "validation_fraction": 0.0}
    records = make_records(12) + [sentence] * with_it
    first = open_site(write_site(tmp_path / "a", records, dataset={"id": "a", **settings}, state=state))
    notes = [{"text": f"intake note {number}", "label": "positive", "group": f"p{number}"} for number in range(6)]
    grouped = {"id": "b", **settings, **GROUPED}
    second = open_site(write_site(tmp_path / "b", notes, dataset=grouped, state=state))
    local, client = {"sampling_probability": 1.0, "nominal_units": 20}, ClientProcess()
    run = lock(make_run(local=local), hash_model(base_folder))
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"]
    asking = Asking(_by_group(run), lambda: second, client)
    assert kinds(asking.offer()) == ["accepted"]
    more = [{**sentence, "group": f"p{number}"} for number in range(6)]
    write_records(second.config.dataset.path, [*notes, *more])
    assert kinds(asking.update()) == ["update"]
    [made] = client.shares.values()
    assert [len(unit) for unit in made.shares.training.table.units] == [2] * 6


def test_who_came_into_a_file_in_mid_run_is_its_dataset_s_from_then_on(two: Any, run: RunConfig) -> None:
    records = make_records(40)
    first, second = (open_site(path) for path in two(records[:20], records[19:20]))
    client = ClientProcess()
    asking = Asking(run, lambda: first, client)
    assert kinds(asking.offer()) == ["accepted"]
    write_records(first.config.dataset.path, records)
    assert kinds(asking.update()) == ["update"]
    write_records(second.config.dataset.path, records[30:])
    assert kinds(Asking(run, lambda: second).offer()) == ["declined"]


def test_the_same_people_under_another_label_are_the_same(two: Any, run: RunConfig) -> None:
    records = make_records(20)
    changed = [{**record, "label": "positive"} for record in records]
    first, second = (open_site(path) for path in two(records, changed))
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"]
    assert kinds(Asking(run, lambda: second).offer()) == ["declined"]


def test_the_same_people_cut_to_another_length_are_the_same(two: Any, run: RunConfig) -> None:
    long = [{**record, "text": f"{record['text']} and so on"} for record in make_records(20)]
    first, second = two(long, long)
    second.write_text(second.read_text(encoding="utf-8").replace("[dataset]", "[dataset]\nmax_chars = 10"), "utf-8")
    assert kinds(Asking(run, lambda: open_site(first)).offer()) == ["accepted"]
    assert kinds(Asking(run, lambda: open_site(second)).offer()) == ["declined"]


def test_a_group_is_one_person_in_every_dataset(two: Any, run: RunConfig) -> None:
    grouped = _by_group(run)
    other = [{**record, "text": f"again {number}"} for number, record in enumerate(make_records(20, groups=5))]
    first, second = (open_site(path) for path in two(make_records(20, groups=5), other, dataset=GROUPED))
    assert kinds(Asking(grouped, lambda: first).offer()) == ["accepted"]
    assert kinds(Asking(grouped, lambda: second).offer()) == ["declined"]


@pytest.mark.parametrize("grouped_first", [False, True])
def test_the_same_people_under_another_unit_are_the_same(
    tmp_path: Path, run: RunConfig, model: WarmModel, grouped_first: bool
) -> None:
    """Else the same notes, once as records and once by patient, would have two budgets."""
    records, sites = make_records(20, groups=5), list[Site]()
    for name, grouped in (("one", grouped_first), ("two", not grouped_first)):
        dataset = {"id": name, **(GROUPED if grouped else {})}
        state = {"dir": str(tmp_path / "state"), "anchor": str(tmp_path / "anchor")}
        sites.append(open_site(write_site(tmp_path / name, records, dataset=dataset, state=state)))
    first, second = sites
    runs = [_by_group(run), run] if grouped_first else [run, _by_group(run)]
    assert kinds(Asking(runs[0], lambda: first).offer()) == ["accepted"]
    assert kinds(Asking(runs[1], lambda: second).offer()) == ["declined"]
    assert second.ledger.account().number == 0, "nothing was charged"
    assert len(_texts(second, model, run.task)) == 20, "in a round the first decides nothing"
    assert kinds(Asking(runs[1], lambda: second).update()) == ["declined"], "nor does the first round join"
    assert kinds(Asking(runs[0], lambda: first).offer()) == ["accepted"]
    assert len(_texts(first, model, run.task)) == 20, "the first dataset keeps all of its own"


@pytest.mark.parametrize("grouped_first", [False, True])
def test_other_people_under_another_unit_share_a_state_folder(
    tmp_path: Path, run: RunConfig, grouped_first: bool
) -> None:
    records = make_records(40, groups=40)
    for name, grouped, own in (("one", grouped_first, records[:20]), ("two", not grouped_first, records[20:])):
        dataset = {"id": name, **(GROUPED if grouped else {})}
        state = {"dir": str(tmp_path / "state"), "anchor": str(tmp_path / "anchor")}
        path = write_site(tmp_path / name, own, dataset=dataset, state=state)
        asked = _by_group(run) if grouped else run
        assert kinds(Asking(asked, lambda path=path: open_site(path)).offer()) == ["accepted"]  # type: ignore[misc]


@pytest.mark.parametrize("grouped", [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize("text", ["", "  ", None])
def test_texts_that_nobody_uses_are_no_overlap(
    tmp_path: Path, run: RunConfig, model: WarmModel, text: str | None, grouped: tuple[bool, bool]
) -> None:
    records = [{**record, "group": f"p{number}"} for number, record in enumerate(make_records(40))]
    for number, name in enumerate(("one", "two")):
        own = [
            *records[20 * number : 20 * number + 20],
            {"text": text, "label": "positive", "group": f"p{20 * number}"},
        ]
        dataset = {"id": name, **(GROUPED if grouped[number] else {})}
        state = {"dir": str(tmp_path / "state"), "anchor": str(tmp_path / "anchor")}
        site = open_site(write_site(tmp_path / name, own, dataset=dataset, state=state))
        asked = _by_group(run) if grouped[number] else run
        assert kinds(Asking(asked, lambda site=site: site).offer()) == ["accepted"]  # type: ignore[misc]
        assert len(_texts(site, model, asked.task)) == 20


@pytest.mark.parametrize("group", [None, "", "  ", float("nan")])
def test_records_without_a_group_are_no_overlap(two: Any, run: RunConfig, model: WarmModel, group: object) -> None:
    grouped = _by_group(run)
    nobody = [{**record, "group": group} for record in make_records(3)]
    first_half = [{**record, "group": f"a{number}"} for number, record in enumerate(make_records(9))]
    second_half = [{**record, "group": f"b{number}"} for number, record in enumerate(make_records(9))]
    sites = [open_site(path) for path in two([*first_half, *nobody], [*second_half, *nobody], dataset=GROUPED)]
    for site in sites:
        assert kinds(Asking(grouped, lambda site=site: site).offer()) == ["accepted"]  # type: ignore[misc]
        assert len(_texts(site, model, run.task)) == 9, "and nobody's records are used"


def test_two_datasets_with_other_people_share_a_state_folder(two: Any, run: RunConfig) -> None:
    records = make_records(40)
    for path in two(records[:20], records[20:]):
        assert kinds(Asking(run, lambda path=path: open_site(path)).offer()) == ["accepted"]  # type: ignore[misc]


def test_two_datasets_in_one_state_folder_know_their_own_answers(two: Any, run: RunConfig) -> None:
    records = make_records(40)
    for path in two(records[:20], records[20:]):
        assert kinds(Asking(run, lambda path=path: open_site(path)).update()) == ["update"]  # type: ignore[misc]


def test_a_receipt_of_one_dataset_says_nothing_of_another_s_ledger(two: Any, run: RunConfig) -> None:
    records = make_records(40)
    first, second = (open_site(path) for path in two(records[:20], records[20:]))
    receipt = update_of(Asking(run, lambda: first).update()).receipt()
    assert kinds(Asking(run, lambda: second).update(receipt=receipt)) == ["update"]


def test_a_refused_joining_claims_nobody(two: Any, run: RunConfig) -> None:
    """The remedy that the message names is to use the first id; with it the same people are refused again."""
    records = make_records(30)
    paths = two(records[:20], records[15:])
    for path, expected in zip(paths, ("accepted", "declined"), strict=True):
        assert kinds(Asking(run, lambda path=path: open_site(path)).offer()) == [expected]  # type: ignore[misc]
    write_records(paths[0].parent / "notes.jsonl", records)
    assert kinds(Asking(run, lambda: open_site(paths[0])).offer()) == ["accepted"]


def test_a_person_is_known_by_a_keyed_name(tmp_path: Path) -> None:
    """Whoever reads people.db cannot look anybody up."""
    site = open_site(write_site(tmp_path))
    [record] = make_records(1)
    names = names_of(record, task_of("text-classification"), site.data.secret)
    assert names is not None
    assert names != names_of(record, task_of("text-classification"), bytes(32))
    assert site.data.claims.claim("people", {names}) == {names}
    assert People(tmp_path / "state" / "people.db").claim("other", {names}) == set()
    assert record["text"].encode() not in (tmp_path / "state" / "people.db").read_bytes()
