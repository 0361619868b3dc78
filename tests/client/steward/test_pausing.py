"""A pause must work when nothing else does: a person wants the running client to stop."""

from pathlib import Path

from support.installations import write_site

from confide.client.site.installation import open_site
from confide.client.steward.pausing import pause, resume


def test_a_client_with_a_damaged_ledger_is_paused(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    open_site(path)
    (tmp_path / "state" / "ledger.db-wal").unlink()
    (tmp_path / "state" / "ledger.db").write_bytes(b"no database" * 100)
    first, second = pause(path)
    assert (tmp_path / "state" / "paused").exists()
    assert first == "paused: nothing new is answered"
    assert second.startswith("shares that may be held here were not looked at: ")
    assert "put back the intact file" in second
    assert resume(path) == "answering again"
    assert not (tmp_path / "state" / "paused").exists()


def test_a_client_that_has_never_run_is_paused(tmp_path: Path) -> None:
    assert pause(write_site(tmp_path)) == ["paused: nothing new is answered"]
    assert (tmp_path / "state" / "paused").exists()
