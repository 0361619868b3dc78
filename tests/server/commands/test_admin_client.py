"""What an operator's commands show: a run that is followed, and the status."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from confide.common.errors import ConfideError
from confide.server.commands import admin_client

HOME: Any = SimpleNamespace(folder=Path("/srv/my fl"))


def _answers(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> list[str]:
    """The server's next answers, or that it is away; the paths that it was asked for."""
    left, paths = list(answers), list[str]()

    def ask(home: Any, method: str, path: str) -> Any:
        paths.append(path)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(admin_client, "ask", ask)
    monkeypatch.setattr(admin_client.time, "sleep", lambda seconds: None)
    return paths


def _state(status: str, *events: str, reason: str = "") -> dict[str, Any]:
    return {"status": status, "reason": reason, "events": list(events)}


_ROUND = '{"event": "round", "round": 1, "accepted": 2, "seconds": 0.5}'
_GIVEN = '{"event": "given_out", "to": ["mary"], "missing": ["jude"]}'


def test_following_a_run_outlasts_a_restart_and_tells_who_has_the_adapter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = admin_client.AwayError("no server answers at http://127.0.0.1:1/")
    paths = _answers(
        monkeypatch,
        _state("running", _ROUND),
        away,
        away,
        _state("completed"),  # the adapter is on its way
        _state("completed", _GIVEN),
        _state("completed"),
    )
    assert admin_client.follow(HOME, "a-run", "run") == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "round 1: 2 updates, 0.5 s",
        "the finished adapter is at mary; not at jude: `confide server resume a-run --home '/srv/my fl'` gives it to "
        "who is connected",
        "a-run: completed",
    ]
    assert told.err.count("no server answers") == 1
    assert [path.rpartition("=")[2] for path in paths] == ["0", "1", "1", "1", "1", "2"]


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("run", "refused", 3), ("run", "stopped", 1), ("run", "failed", 1), ("rehearsal", "completed", 0)],
)
def test_the_exit_code_tells_how_it_ended(monkeypatch: pytest.MonkeyPatch, kind: str, status: str, code: int) -> None:
    _answers(monkeypatch, _state(status, reason="why"))
    assert admin_client.follow(HOME, "a-run", kind) == code


def test_an_adapter_that_is_never_given_out_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, _state("completed"))
    monkeypatch.setattr(admin_client, "_GIVEN_OUT_SECONDS", 0.05)
    assert admin_client.follow(HOME, "a-run", "run") == 0


def test_an_error_of_the_server_itself_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, ConfideError("no run 'a-run' here"))
    with pytest.raises(ConfideError, match="no run"):
        admin_client.follow(HOME, "a-run", "run")


def test_a_follower_leaves_no_connection_open_and_reads_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks three times a second, for as long as a run lasts."""
    made, client, home = list[tuple[httpx.Client, Any]](), httpx.Client, SimpleNamespace(token="a token")  # noqa: S106
    home.config = SimpleNamespace(server=SimpleNamespace(admin_port=8444))

    def answers(**settings: Any) -> httpx.Client:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json={}))
        made.append((client(**settings, transport=transport), settings["verify"]))
        return made[-1][0]

    monkeypatch.setattr(httpx, "Client", answers)
    admin_client.ask(home, "GET", "/status")
    assert [(one.is_closed, verified) for one, verified in made] == [(True, False)]


def test_the_status_is_told_in_lines() -> None:
    versions = {"protocol": 1, "confide": "0.1.0", "flwr": "1.41.0"}
    nobody = {"run": None, "answer": None, "versions": None, "asked": 0, "accepted": 0, "dropped": None}
    facts = {
        "troubles": ["registry.json is gone; put it back from the backup"],
        "clients": {
            "mary": {"status": "online", "since": "2026-11-22T10:00:00", **nobody}
            | {"run": "a-run", "answer": "accepted", "versions": versions, "asked": 8, "accepted": 7}
            | {"dropped": "round 3: no answer before the deadline"},
            "jude": {
                "status": "offline",
                "since": "2026-11-22T11:00:00",
                **nobody,
                "run": "a-run",
                "answer": "declined",
            },
            "luke": {"status": "registered", "since": None, **nobody},
        },
        "runs": [
            {"name": "a-run", "kind": "run", "status": "running", "reason": "", "round": 8, "num_rounds": 20},
            {"name": "b", "kind": "rehearsal", "status": "refused", "reason": "1 of 3 could take part"},
        ],
    }
    assert admin_client.status_lines(facts) == [
        "trouble: registry.json is gone; put it back from the backup",
        "mary: connected since 2026-11-22T10:00:00; confide 0.1.0 with flwr 1.41.0; a-run: accepted; 7 of 8 rounds "
        "taken; last dropped from round 3: no answer before the deadline",
        "jude: not connected since 2026-11-22T11:00:00; a-run: declined",
        "luke: not connected since this server has started",
        "a-run: running, round 8 of 20",
        "b: refused 1 of 3 could take part",
    ]


def test_a_later_offer_is_shown_to_who_follows_and_a_status_of_nothing_says_so() -> None:
    event = {"event": "offered_later", "round": 4, "declared_units": {"jude": 90}, "others": {"luke": "declined"}}
    assert admin_client._told(event, "") == "offered again before round 4: accepted by jude; luke: declined\n"
    nothing: dict[str, Any] = {"troubles": [], "clients": {}, "runs": []}
    assert admin_client.status_lines(nothing) == ["no institution is approved here yet, and no run was proposed"]
