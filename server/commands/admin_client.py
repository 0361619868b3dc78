"""Requests of the operator's commands to the admin port, and their answers as text. No heavy import is made here."""

import json
import shlex
import time
from collections.abc import Callable
from typing import Any

import typer

from confide.common.errors import ConfideError, InputError
from confide.common.model.scores import score_text

_GIVEN_OUT_SECONDS = 90.0  # after a run's end, for all to fetch the adapter; longer than the server waits
_AWAY_SECONDS = 2.0


class AwayError(ConfideError):
    """No server answers."""


def ask(home: Any, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send one request to the admin port and return the answer.

    Raises:
        AwayError: no server answers.
        InputError, ConfideError: the server reports an error.
    """
    import httpx

    url = f"http://127.0.0.1:{home.config.server.admin_port}{path}"
    headers = {"authorization": f"Bearer {home.token}"}
    try:
        # A proxy of the environment must not see the token. httpx would use it for loopback too. There is no TLS on
        # loopback, and reading the system's certificates takes some 20 ms of CPU each time that a follower asks.
        with httpx.Client(trust_env=False, timeout=60, verify=False) as client:  # noqa: S501
            answer = client.request(method, url, json=body, headers=headers)
    except httpx.HTTPError as error:
        raise AwayError(
            f"no server answers at {url} ({type(error).__name__}); `confide server start --home {home.folder}` runs one"
        ) from None
    try:
        facts: dict[str, Any] = answer.json()
    except ValueError:
        raise ConfideError(f"{url} answered HTTP {answer.status_code}, not JSON; the server's log says why") from None
    if answer.status_code != 200:
        kind = ConfideError if facts.get("exit_code") == ConfideError.exit_code else InputError
        raise kind(facts.get("error", f"HTTP {answer.status_code}"))
    return facts


def follow(home: Any, name: str, kind: str) -> int:
    """Show a run until it ends and its adapter is given out. Return the exit code."""
    from confide.server.home.queue import ENDED

    shown, ended_at, given_out = 0, 0.0, kind != "run"
    again = f"confide server resume {name} --home {shlex.quote(str(home.folder.absolute()))}"
    while True:
        facts = _ask_patiently(home, f"/runs/{name}/events?after={shown}")
        for line in facts["events"]:
            event = json.loads(line)
            given_out |= event["event"] == "given_out"
            typer.echo(_told(event, again), nl=False)
        shown += len(facts["events"])
        if facts["status"] in ENDED and not facts["events"]:
            ended_at = ended_at or time.monotonic()
            if facts["status"] != "completed" or given_out or time.monotonic() > ended_at + _GIVEN_OUT_SECONDS:
                typer.echo(f"{name}: {facts['status']} {facts['reason']}".rstrip())
                return {"completed": 0, "refused": 3}.get(facts["status"], 1)
        time.sleep(0.3)


def _ask_patiently(home: Any, path: str) -> dict[str, Any]:
    """Return an answer, and wait for a server that is restarting."""
    told = False
    while True:
        try:
            return ask(home, "GET", path)
        except AwayError as error:
            if not told:
                typer.echo(f"{error}; waiting for it (Ctrl-C ends this, and not the run)", err=True)
            told = True
            time.sleep(_AWAY_SECONDS)


def _told(event: dict[str, Any], again: str) -> str:
    """Return an event as a line for a person, or "". ``again`` is the command that sends the adapter again."""
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "offered": _offered,
        "offered_later": _offered_later,
        "round": _round,
        "rehearsed": _rehearsed,
        "rehearsed_sum": lambda event: f"{event['answer']} ({event['seconds']} s)",
        "dropped": lambda event: f"round {event['round']}: {event['institution']} dropped: {event['reason']}",
        "given_out": lambda event: _given_out(event, again),
    }
    tell = lines.get(event["event"])
    return f"{tell(event)}\n" if tell else ""


def _offered(event: dict[str, Any]) -> str:
    others = "".join(f"; {name}: {answer}" for name, answer in event["others"].items())
    return f"offered to {event['asked']}, accepted by {event['accepted']}{others}"


def _offered_later(event: dict[str, Any]) -> str:
    told = [f"accepted by {name}" for name in event["declared_units"]]
    told += [f"{name}: {answer}" for name, answer in event["others"].items()]
    return f"offered again before round {event['round']}: {'; '.join(told)}"


def _round(event: dict[str, Any]) -> str:
    score = event.get("score")
    reached = f", {score['metric']} {score_text(score['metric'], score['mean'])}" if score else ""
    return f"round {event['round']}: {event['accepted']} updates, {event['seconds']} s{reached}"


def _rehearsed(event: dict[str, Any]) -> str:
    seconds = f" in {event['seconds']} s" if "seconds" in event else ""
    return f"{event['institution']}: {event['answer']}{seconds}"


def _given_out(event: dict[str, Any], again: str) -> str:
    told = f"the finished adapter is at {', '.join(event['to']) or 'no institution'}"
    if not event["missing"]:
        return told
    return f"{told}; not at {', '.join(event['missing'])}: `{again}` gives it to who is connected"


def status_lines(facts: dict[str, Any]) -> list[str]:
    """Return the facts of `server status` as lines for a person."""
    lines = [f"trouble: {trouble}" for trouble in facts["troubles"]]
    for name, client in facts["clients"].items():
        word = "connected since" if client["status"] == "online" else "not connected since"
        parts = [f"{name}: {word} {(client['since'] or '')[:19] or 'this server has started'}"]
        if client["versions"]:
            parts.append(f"confide {client['versions']['confide']} with flwr {client['versions']['flwr']}")
        if client["run"]:
            parts.append(f"{client['run']}: {client['answer'] or 'no answer known'}")
        if client["asked"]:
            parts.append(f"{client['accepted']} of {client['asked']} rounds taken")
        if client["dropped"]:
            parts.append(f"last dropped from {client['dropped']}")
        lines.append("; ".join(parts))
    for run in facts["runs"]:
        rounds = f", round {run['round']} of {run['num_rounds']}" if "round" in run else ""
        lines.append(f"{run['name']}: {run['status']}{rounds} {run['reason']}".rstrip())
    return lines or ["no institution is approved here yet, and no run was proposed"]
