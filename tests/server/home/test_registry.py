"""Who may take part: approved once, under one name, with keys that nobody had before."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from confide.common.errors import InputError
from confide.common.protocol.enrolment import JoinRequest
from confide.server.home import registry as registry_module
from confide.server.home.registry import Registry

MARY, JUDE = JoinRequest("mary", "node m", "update m"), JoinRequest("jude", "node j", "update j")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "registry.json").write_bytes(b"[]")
    return Registry(tmp_path / "registry.json")


def test_who_is_approved_is_found_again_by_another_process(registry: Registry, tmp_path: Path) -> None:
    registry.approve(MARY)
    registry.approve(JUDE)
    assert set(Registry(tmp_path / "registry.json").approved()) == {"mary", "jude"}
    assert (tmp_path / "registry.json").stat().st_mode & 0o077 == 0


def test_a_revoked_institution_is_out_and_its_keys_stay_out(registry: Registry) -> None:
    registry.approve(MARY)
    registry.revoke("mary")
    assert registry.approved() == {}
    for request in (MARY, replace(MARY, institution="other"), replace(JUDE, update_key="update m")):
        with pytest.raises(InputError, match="must make new ones"):
            registry.approve(request)
    registry.approve(replace(MARY, node_key="new node", update_key="new update"))
    assert set(registry.approved()) == {"mary"}
    assert len(registry.members()) == 2, "who was there once is not forgotten"


def test_an_approval_does_not_bring_back_who_is_revoked_meanwhile(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands of an operator at once: each reads the file, and writes it anew."""
    registry.approve(MARY)
    write, revoking = registry_module.replace_durably, list[threading.Thread]()

    def slow(*written: Any) -> None:
        if not revoking:
            other = Registry(tmp_path / "registry.json")
            revoking.append(threading.Thread(target=other.revoke, args=("mary",)))
            revoking[0].start()
            revoking[0].join(0.5)  # done now, if nothing holds it
        write(*written)

    monkeypatch.setattr(registry_module, "replace_durably", slow)
    registry.approve(JUDE)
    revoking[0].join(10)
    assert set(registry.approved()) == {"jude"}


def test_the_same_request_again_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    """An operator makes a kit anew, for another authority."""
    registry.approve(MARY)
    before = (tmp_path / "registry.json").read_bytes()
    registry.approve(MARY)
    assert (tmp_path / "registry.json").read_bytes() == before
    for changed in (replace(MARY, node_key="new"), replace(MARY, update_key="new")):
        with pytest.raises(InputError, match="revoke it first"):
            registry.approve(changed)


def test_a_name_is_given_once(registry: Registry) -> None:
    registry.approve(MARY)
    with pytest.raises(InputError, match="approved already"):
        registry.approve(replace(JUDE, institution="mary"))
    with pytest.raises(InputError, match="approved are: mary"):
        registry.revoke("nobody")


def test_a_damaged_registry_admits_nobody(registry: Registry, tmp_path: Path) -> None:
    for content in (b"{", b"[1]", b'[{"institution": "x"}]', b"\xff"):
        (tmp_path / "registry.json").write_bytes(content)
        with pytest.raises(InputError, match="put it back"):
            registry.approved()


def test_a_registry_that_is_away_is_not_one_of_nobody(registry: Registry, tmp_path: Path) -> None:
    assert registry.members() == []
    (tmp_path / "registry.json").unlink()
    for call in (registry.members, lambda: registry.approve(MARY), lambda: registry.revoke("mary")):
        with pytest.raises(InputError, match="is gone; put it back from the backup"):
            call()
    assert not list(tmp_path.iterdir()), "a new one would have forgotten whose keys are revoked"
