"""The check of the installed Flower before a server serves: it passes here, and it can fail."""

from pathlib import Path
from typing import Any

import pytest

from confide.common.errors import ConfideError
from confide.server.fleet import self_test
from confide.server.fleet.superlink import LinkGrid


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))


def test_the_installed_flower_carries_an_ask_and_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment names a proxy, which cannot reach this machine's own port."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    self_test.require_flower(tmp_path)


def test_a_folder_that_cannot_be_written_is_no_fault_of_flower(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        self_test.require_flower(tmp_path / "gone")


@pytest.mark.parametrize(
    ("where", "name", "value", "reason"),
    [
        (LinkGrid, "pull_messages", lambda self, ids: [], "the answer to an ask did not come back"),
        (LinkGrid, "_push", lambda self, message: "1" * 64, "does not reach its node"),
        (self_test, "fleet_app", lambda *rest: None, "AttributeError"),
    ],
    ids=["answers in another table", "asks in another table", "another application"],
)
def test_a_flower_that_works_otherwise_is_refused_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, value: Any, reason: str
) -> None:
    monkeypatch.setattr(where, name, value)
    with pytest.raises(ConfideError, match=rf"Flower 1\..* does not work as this server needs it: .*{reason}"):
        self_test.require_flower(tmp_path)
