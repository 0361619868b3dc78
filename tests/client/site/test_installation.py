"""An installation on disk: what a site.toml opens, what it refuses, who may read what it leaves behind."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.installations import Asking, kinds, update_of, write_records, write_site
from support.ledgers import CAP, PLAN, reserve
from support.sites import make_records

from confide.client.data.dataset_claims import People
from confide.client.data.units import names_of
from confide.client.privacy.ledger import Ledger
from confide.client.site import installation as site_module
from confide.client.site.installation import Site, open_site
from confide.client.training.shares import ClientProcess, prepare
from confide.common.config.run import RunConfig, lock
from confide.common.errors import ConfideError, InputError, LedgerError, PolicyError
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import WarmModel
from confide.common.tasks import Task

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"sampling_probability": 1.0, "nominal_units": 20}), hash_model(base_folder))


@pytest.fixture
def _open_umask() -> Iterator[None]:
    """Whatever the account's umask would allow others to read."""
    before = os.umask(0)
    yield
    os.umask(before)


def _modes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")}


# Files


@pytest.mark.usefixtures("_open_umask")
def test_only_the_owner_may_read_what_a_site_leaves_behind(tmp_path: Path, run: RunConfig) -> None:
    path = write_site(tmp_path)
    asking = Asking(run, lambda: open_site(path))
    assert [kinds(asking.offer()), kinds(asking.update()), kinds(asking.counts())] == [
        ["accepted"],
        ["update"],
        ["declined"],
    ]
    write_site(tmp_path, policy={"require_approval": None})
    assert kinds(asking.update(2)) == ["declined"], "waits for approval, and is kept for it"
    modes = {name: mode for name, mode in _modes(tmp_path).items() if name not in ("site.toml", "notes.jsonl")}
    folders = {"state", "state-anchor", "state/outbox", "state/offers", "local"}
    assert folders < modes.keys()
    assert {"state/ledger.db", "state/people.db", "state/secret.key", "state/identity.key"} < modes.keys()
    assert {"state/audit.jsonl", "state/refusals.jsonl", "local/errors.log"} < modes.keys()
    assert modes == {name: "0o700" if (tmp_path / name).is_dir() else "0o600" for name in modes}


def test_paths_count_from_the_folder_of_the_site_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: WarmModel
) -> None:
    write_site(tmp_path / "st-mary", dataset={"path": "../notes.jsonl"}, state={"dir": "here/state"})
    shutil.move(tmp_path / "st-mary" / "notes.jsonl", tmp_path / "notes.jsonl")
    monkeypatch.chdir(tmp_path)
    site = open_site(Path("st-mary/site.toml"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(site.data.records(model.task)) == 20
    site.report(ValueError("kept here"))
    assert not list((tmp_path / "elsewhere").iterdir())
    assert {path.name for path in (tmp_path / "st-mary").iterdir()} == {"site.toml", "here", "state-anchor", "local"}
    assert (tmp_path / "st-mary" / "here" / "state" / "ledger.db").is_file()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = write_site(tmp_path, state={"dir": "~/state", "anchor": "~/anchor"}, dataset={"path": "~/notes.jsonl"})
    assert open_site(path).config.dataset.path == tmp_path / "home" / "notes.jsonl"
    assert (tmp_path / "home" / "state" / "ledger.db").is_file()


def test_a_home_folder_of_nobody_is_a_clear_error_that_names_its_key(tmp_path: Path) -> None:
    for section, key in (("dataset", "path"), ("state", "dir"), ("state", "anchor"), ("models", "dir")):
        path = write_site(tmp_path, **{section: {key: "~nobody-at-all/x"}})
        with pytest.raises(
            InputError, match=rf"site\.toml: {section}\.{key} = '~nobody-at-all/x': nobody's home folder"
        ):
            open_site(path)


def test_a_site_opens_again_with_the_same_secrets_and_the_same_ledger(tmp_path: Path, run: RunConfig) -> None:
    path = write_site(tmp_path)
    first = open_site(path)
    assert kinds(Asking(run, lambda: first).update()) == ["update"]
    second = open_site(path)
    assert second.data.secret == first.data.secret
    assert first.identity.signed_by_me("text", second.identity.sign("text"))
    assert second.ledger.rows() == first.ledger.rows() != []
    assert second.outbox.names() == first.outbox.names() != []
    assert kinds(Asking(run, lambda: second).update(2)) == ["update"]
    assert first.ledger.account().number == second.ledger.account().number, "two processes see one ledger"


def test_secrets_differ_between_sites(tmp_path: Path) -> None:
    sites = [open_site(write_site(tmp_path / name)) for name in ("a", "b")]
    assert sites[0].data.secret != sites[1].data.secret
    assert not sites[0].identity.signed_by_me("text", sites[1].identity.sign("text"))
    for site in sites:
        assert site.data.secret not in ((site.config.state.dir / "identity.key").read_bytes(), bytes(32))


@pytest.mark.parametrize("name", ["secret.key", "identity.key"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"short")])
def test_a_secret_that_is_gone_or_damaged_is_not_drawn_anew(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    """Another secret would move units between train and validation, and forget who signed what."""
    path = write_site(tmp_path)
    open_site(path)
    damage(tmp_path / "state" / name)
    for _ in range(2):
        with pytest.raises(LedgerError, match=rf"{name}.*backup"):
            open_site(path)


def test_two_first_openings_at_once_agree_on_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real, others = write_site(tmp_path), site_module.write_durably, list[Site]()

    def meanwhile(*rest: Any) -> None:
        """Another process opens the site between the look and the write."""
        monkeypatch.setattr(site_module, "write_durably", real)
        others.append(open_site(path))
        real(*rest)

    monkeypatch.setattr(site_module, "write_durably", meanwhile)
    first = open_site(path)
    assert first.data.secret == others[0].data.secret


def test_an_error_is_kept_at_home_and_a_refusal_among_the_refusals_too(tmp_path: Path) -> None:
    site = open_site(write_site(tmp_path))
    site.report(ValueError("record 3 is odd"))
    site.report(PolicyError("too many steps"))
    errors = (tmp_path / "local" / "errors.log").read_text(encoding="utf-8")
    assert "record 3 is odd" in errors
    assert "PolicyError: too many steps" in errors
    refusals = (tmp_path / "state" / "refusals.jsonl").read_text(encoding="utf-8")
    assert "too many steps" in refusals
    assert "odd" not in refusals


def test_a_row_that_another_process_adds_meanwhile_makes_no_ledger_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`client status` beside a client that is in the middle of a round."""
    path = write_site(tmp_path)
    running, read = open_site(path).ledger, Ledger.rows
    running.open_study("study", PLAN, CAP)

    def rows(ledger: Ledger) -> list[Any]:
        found = read(ledger)
        reserve(running)
        return found

    monkeypatch.setattr(Ledger, "rows", rows)
    assert len(open_site(path).ledger.account().reservations) == 1


# Folders that cannot hold a ledger


@pytest.mark.parametrize("section", [{"dir": "taken"}, {"dir": "taken/below"}, {"anchor": "taken"}])
def test_a_folder_that_cannot_be_written_is_a_clear_error_that_names_its_key(
    tmp_path: Path, section: dict[str, str]
) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    path = write_site(tmp_path, state=section)
    [(key, value)] = section.items()
    told = rf"site\.toml: state\.{key} = {tmp_path / value}: .*; choose a folder that can be written"
    with pytest.raises(InputError, match=told):
        open_site(path)


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(site_module, "write_durably", full)
    with pytest.raises(InputError, match="No space left on device"):
        open_site(write_site(tmp_path))


def test_a_ledger_that_is_something_else_is_a_clear_error(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    open_site(path)
    for leftover in (tmp_path / "state").glob("ledger.db*"):
        leftover.unlink()
    (tmp_path / "state" / "ledger.db").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match="not a ledger"):
        open_site(path)


@pytest.mark.parametrize("content", [b"not a database" * 100, None], ids=["damaged", "a folder"])
def test_people_that_are_something_else_are_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = write_site(tmp_path)
    (tmp_path / "state").mkdir()
    if content is None:
        (tmp_path / "state" / "people.db").mkdir()
    else:
        (tmp_path / "state" / "people.db").write_bytes(content)
    with pytest.raises(ConfideError, match=r"people\.db"):
        open_site(path)


@pytest.mark.parametrize("anchor", ["state", "./state"])
def test_the_anchor_is_not_the_state_folder(tmp_path: Path, anchor: str) -> None:
    with pytest.raises(InputError, match=r"state\.anchor"):
        open_site(write_site(tmp_path, state={"anchor": anchor}))


@pytest.mark.parametrize("anchor", ["state/anchor", "state/../state", "link"])
def test_the_anchor_is_not_in_the_state_folder_however_it_is_called(tmp_path: Path, anchor: str) -> None:
    """Who puts back an old copy of the state folder would put back the anchor with it."""
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "state")
    with pytest.raises(InputError, match=r"state\.anchor"):
        open_site(write_site(tmp_path, state={"anchor": anchor}))


Mounts = Callable[[str], None]


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounts:
    """``mounts("nfs4 HERE")``: what /proc/mounts says, lines of file system and place."""
    table = tmp_path / "mounts"

    def say(lines: str) -> None:
        entries = (line.split(" ", 1) for line in lines.splitlines())
        table.write_text("".join(f"device {place} {kind} rw 0 0\n" for kind, place in entries), encoding="utf-8")

    def path_of(name: str) -> Path:
        return table if name == "/proc/mounts" else Path(name)

    monkeypatch.setattr(site_module, "Path", path_of)
    return say


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph", "lustre"])
def test_a_state_folder_on_a_network_file_system_is_refused(tmp_path: Path, mounts: Mounts, kind: str) -> None:
    mounts(f"ext4 /\n{kind} {tmp_path}")
    with pytest.raises(InputError, match=rf"state\.dir.*network file system \({kind}\).*local disk"):
        open_site(write_site(tmp_path / "site"))


@pytest.mark.parametrize("kind", ["fuse.glusterfs", "fuse.ceph-fuse", "fuse.s3fs", "smbfs"])
def test_other_network_file_systems_are_refused_too(tmp_path: Path, mounts: Mounts, kind: str) -> None:
    mounts(f"ext4 /\n{kind} {tmp_path}")
    with pytest.raises(InputError):
        open_site(write_site(tmp_path / "site"))


@pytest.mark.parametrize("table", ["ext4 /", "nfs4 /\next4 HERE", "nfs4 HERE/other\next4 /", "autofs HERE\next4 HERE"])
def test_the_mount_that_counts_is_the_nearest(tmp_path: Path, mounts: Mounts, table: str) -> None:
    mounts(table.replace("HERE", str(tmp_path)))
    open_site(write_site(tmp_path / "site"))


def test_a_network_file_system_behind_a_link_is_found(tmp_path: Path, mounts: Mounts) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    mounts(f"ext4 /\nautofs {tmp_path / 'share'}\nnfs4 {tmp_path / 'share'}")
    with pytest.raises(InputError, match="nfs4"):
        open_site(write_site(tmp_path / "site", state={"dir": str(tmp_path / "link" / "state")}))


def test_a_network_file_system_whose_place_has_a_space_is_found(tmp_path: Path, mounts: Mounts) -> None:
    folder = tmp_path / "our share"
    folder.mkdir()
    mounts("ext4 /\nnfs4 " + str(folder).replace(" ", "\\040"))
    with pytest.raises(InputError, match="nfs4"):
        open_site(write_site(folder))


# Two datasets in one state folder


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
    held = [model.task.encode(record, model.tokenizer) for unit in shares.validation for record in unit]
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
    assert kinds(Asking(run, lambda: second).update()) == ["update"], "a round is never stopped by a record"
    assert kinds(Asking(run, lambda: first).offer()) == ["accepted"], "the first keeps all of its own"
    assert kinds(Asking(run, lambda: second).offer()) == ["declined"], "found when it joins the next time"


@pytest.mark.parametrize("with_it", [False, True])
def test_a_text_of_another_dataset_that_comes_into_every_group_in_mid_run_silences_no_group(
    tmp_path: Path, make_run: MakeRun, base_folder: Path, with_it: bool
) -> None:
    """One unit of the records would have decided about six patients of the other dataset."""
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
    assert kinds(Asking(runs[1], lambda: second).update()) == ["update"], "a round is never stopped by a record"
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
    names = names_of(record, site.data.secret)
    assert names is not None
    assert names != names_of(record, bytes(32))
    assert site.data.claims.claim("people", {names}) == {names}
    assert People(tmp_path / "state" / "people.db").claim("other", {names}) == set()
    assert record["text"].encode() not in (tmp_path / "state" / "people.db").read_bytes()
