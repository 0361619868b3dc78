"""Keys that are replaced: whatever became of the old ones, and with nothing forgotten but them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.installations import write_site
from support.ledgers import PLAN

from confide.client.privacy.policy import cap_of
from confide.client.site.enrolment import make_request
from confide.client.site.installation import open_site
from confide.common.cli import main
from confide.common.errors import LedgerError
from confide.common.protocol.enrolment import read_request

_OURS = ("node.key", "identity.key")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A site that made its keys and took a kit."""
    path = write_site(tmp_path)
    site = open_site(path)
    site.ledger.open_study("test", PLAN, cap_of(site.config.policy))
    make_request(site)
    (tmp_path / "state" / "kit.json").write_text("the old server's", encoding="utf-8")
    return path


def _new_keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """`client join --new-keys`, as an administrator calls it; its exit code."""
    monkeypatch.setattr(sys, "argv", ["confide", "client", "join", "fl:8443", "--new-keys", "--site", str(path)])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    return int(stopped.value.code or 0)


def _short(path: Path) -> None:
    path.write_bytes(b"short")


@pytest.mark.parametrize("damage", [Path.stat, Path.unlink, _short])
@pytest.mark.parametrize("name", _OURS)
def test_both_keys_are_replaced_and_secret_and_ledger_stay(
    path: Path, name: str, damage: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are lost or damaged are replaced too."""
    state, site = path.parent / "state", open_site(path)
    before, rows = make_request(site), site.ledger.rows()
    assert rows
    damage(state / name)
    assert _new_keys(path, monkeypatch) == 0
    request = read_request(path.parent / "join-st-mary.json")
    renewed = open_site(path)
    assert request == make_request(renewed)
    assert request.node_key != before.node_key
    assert request.update_key != before.update_key
    assert (renewed.data.secret, renewed.ledger.rows()) == (site.data.secret, rows)
    assert not (state / "kit.json").exists(), "the server of this kit does not know the new keys"
    audit = (state / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["event"] for line in audit].count("new keys") == 1
    for key in _OURS:
        assert (state / key).stat().st_mode & 0o777 == 0o600


def test_a_lost_secret_is_not_replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one would move units between train and validation."""
    (path.parent / "state" / "secret.key").unlink()
    assert _new_keys(path, monkeypatch) == LedgerError.exit_code
    assert not (path.parent / "state" / "secret.key").exists()


@pytest.mark.parametrize("name", _OURS)
def test_a_damaged_key_names_the_command_that_replaces_it(path: Path, name: str) -> None:
    (path.parent / "state" / name).write_bytes(b"short")
    with pytest.raises(LedgerError, match=f"{name}.*backup, or replace it: `confide client join ADDRESS --new-keys`"):
        make_request(open_site(path))


def test_where_nothing_was_ever_made_there_is_nothing_to_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _new_keys(write_site(tmp_path), monkeypatch) == 2
    assert "state: No such file or directory; `confide client join ADDRESS` makes it" in capsys.readouterr().err
