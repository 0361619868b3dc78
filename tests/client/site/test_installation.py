"""An installation on disk: what a site.toml opens, what it refuses, who may read what it leaves behind."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.installations import Asking, kinds, write_site
from support.ledgers import CAP, PLAN, reserve

from confide.client.config import load_site_config
from confide.client.privacy.ledger import Ledger
from confide.client.site import installation as site_module
from confide.client.site.installation import Site, open_site
from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, InputError, LedgerError, PolicyError
from confide.common.model.warm_model import WarmModel


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


@pytest.mark.parametrize(
    ("state", "anchor"), [("state", "state/anchor"), ("anchor/state", "anchor"), ("both", "both"), ("a/../b", "b")]
)
def test_state_and_its_anchor_lie_apart(state: str, anchor: str, tmp_path: Path) -> None:
    """A copy that takes both back would show an old ledger as the newest."""
    site = write_site(tmp_path, state={"dir": state, "anchor": anchor})
    with pytest.raises(InputError, match="neither may be in the other, for a restored copy"):
        load_site_config(site)


def test_a_mount_of_any_name_stops_no_command(tmp_path: Path, mounts: Mounts) -> None:
    """A stick that was mounted under a Latin-1 name."""
    mounts("ext4 /")
    with (tmp_path / "mounts").open("ab") as table:
        table.write(b"device /media/caf\xe9 vfat rw 0 0\n")
    open_site(write_site(tmp_path / "site"))


def test_a_name_that_no_server_takes_is_refused_at_once(tmp_path: Path) -> None:
    """Else a study opens and is paid, and every answer is dropped as malformed."""
    with pytest.raises(InputError, match=r"institution.name: 'st\\tmary' must be printable characters"):
        load_site_config(write_site(tmp_path, name="st\tmary"))
