"""`confide server ...`: what a coordinator's operator does. Typer declarations; the work is elsewhere."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

HomeOption = Annotated[Path, typer.Option("--home", metavar="DIR", help="the server's folder")]
NameArgument = Annotated[str, typer.Argument(metavar="RUN", help="name of a run, as `server status` shows it")]
_HOME = Path("confide-server")


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="new or empty")] = _HOME,
    host: Annotated[
        list[str] | None, typer.Option(help="name or address at which institutions reach it; may be repeated")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="public port")] = 8443,
) -> None:
    """Make a server's folder: its certificate authority, its certificate, an admin token, a commented server.toml."""
    from confide.common.errors import InputError
    from confide.server.home import init_home

    if not host:
        raise InputError(
            "--host is missing: the name at which institutions reach this server, for example fl.example.org"
        )
    home = init_home(folder, host, port)
    typer.echo(f"{home.folder}: server at {home.address}; `confide server start --home {folder}` serves")


def start(home: HomeOption = _HOME) -> None:
    """Serve until stopped: institutions on the public port, the operator's commands on loopback."""
    from confide.common.flower import prepare
    from confide.server.home import open_home

    opened = open_home(home)
    prepare()
    from confide.server.daemon import serve
    from confide.server.logs import log_json

    log_json()
    serve(
        opened,
        lambda public, admin: typer.echo(json.dumps({"event": "listening", "port": public, "admin_port": admin})),
    )


def approve(
    request: Annotated[Path, typer.Argument(metavar="REQUEST.json", help="what an institution's `client join` wrote")],
    fingerprint: Annotated[str, typer.Option(help="as the institution reads it to you by telephone")],
    home: HomeOption = _HOME,
) -> None:
    """Admit an institution whose fingerprint you compared, and write the kit to give back; once more, the kit anew."""
    from confide.common.durable import write_durably
    from confide.common.errors import ConfideError, InputError
    from confide.common.join import Kit, read_request, write_json
    from confide.server.home import open_home

    opened, asked = open_home(home), read_request(request)
    if fingerprint != asked.fingerprint():
        raise InputError(f"{request}: its fingerprint is {asked.fingerprint()}, not {fingerprint}; do not admit it")
    opened.registry.approve(asked)
    path = request.with_name(f"kit-{asked.institution.replace('/', '_')}.json")
    kit = Kit(opened.address, opened.ca(), asked.institution, asked.fingerprint())
    try:
        write_durably(path, write_json(kit).encode())
    except OSError as error:
        raise ConfideError(
            f"{path}: {error.strerror}; {asked.institution} is approved, and the same command again writes its kit"
        ) from None
    typer.echo(f"{asked.institution} is approved; give it {path}")


def revoke(
    institution: Annotated[str, typer.Argument(metavar="INSTITUTION", help="its name, as `server status` shows it")],
    home: HomeOption = _HOME,
) -> None:
    """Shut an institution out. To come back it needs new keys and a new approval."""
    from confide.server.home import open_home

    open_home(home).registry.revoke(institution)
    typer.echo(f"{institution} is revoked")


def run(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.toml", help="the run to propose")],
    home: HomeOption = _HOME,
    follow: Annotated[bool, typer.Option("--follow", help="wait for its end and show its rounds")] = False,
    rehearsal: Annotated[
        bool, typer.Option("--rehearsal", help="one round on made-up records instead: no data, no charge")
    ] = False,
) -> None:
    """Propose a run to all approved institutions; it starts when enough of them accept.

    With --follow or --rehearsal: exit code 0 when it completed, 3 when too few took part, 1 when it stopped or failed.
    """
    from confide.common.flower import prepare
    from confide.common.models import fetch_model, hash_model
    from confide.common.run_config import load_run, lock
    from confide.server.home import open_home

    opened, loaded = open_home(home), load_run(run_file)
    prepare()
    locked = lock(loaded, hash_model(fetch_model(loaded.model.base)))
    kind = "rehearsal" if rehearsal else "run"
    name = _ask(opened, "POST", "/runs", {"run": locked.canonical_json(), "kind": kind})["name"]
    typer.echo(f"{name}: queued, run {locked.sha256()[:12]}")
    if follow or rehearsal:
        sys.exit(_follow(opened, name))


def status(
    home: HomeOption = _HOME,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Runs, and institutions with when they were last seen."""
    from confide.server.home import open_home

    facts = _ask(open_home(home), "GET", "/status")
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, client in facts["clients"].items():
        typer.echo(f"{name}: {client['status']}, last connected {client['last_activated'] or 'not since this start'}")
    for item in facts["runs"]:
        typer.echo(f"{item['name']}: {item['status']} {item['reason']}")


def stop(name: NameArgument, home: HomeOption = _HOME) -> None:
    """End a run after its open round; `server resume` goes on."""
    from confide.server.home import open_home

    now = _ask(open_home(home), "POST", f"/runs/{name}/stop")["status"]
    typer.echo("running; it stops after its open round" if now == "running" else now)


def resume(name: NameArgument, home: HomeOption = _HOME) -> None:
    """Go on with a run that was stopped or refused, from its last whole round."""
    from confide.server.home import open_home

    typer.echo(_ask(open_home(home), "POST", f"/runs/{name}/resume")["status"])


def _ask(home: Any, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to the admin port."""
    import httpx

    from confide.common.errors import ConfideError, InputError

    url = f"http://127.0.0.1:{home.config.server.admin_port}{path}"
    headers = {"authorization": f"Bearer {home.token}"}
    try:
        # A proxy of the environment must not see the token: httpx would obey it for loopback too.
        answer = httpx.Client(trust_env=False, timeout=60).request(method, url, json=body, headers=headers)
    except httpx.HTTPError as error:
        raise ConfideError(
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


def _follow(home: Any, name: str) -> int:
    """Show a run until it ends; returns the exit code."""
    shown = 0
    while True:
        facts = _ask(home, "GET", f"/runs/{name}/events?after={shown}")
        for line in facts["events"]:
            typer.echo(_told(json.loads(line)), nl=False)
        shown += len(facts["events"])
        if facts["status"] in ("completed", "stopped", "failed", "refused") and not facts["events"]:
            typer.echo(f"{name}: {facts['status']} {facts['reason']}")
            return {"completed": 0, "refused": 3}.get(facts["status"], 1)
        time.sleep(0.3)


def _told(event: dict[str, Any]) -> str:
    """An event as a line for a person, or nothing."""
    if event["event"] == "offered":
        others = "".join(f"; {name}: {answer}" for name, answer in event["others"].items())
        return f"offered to {event['asked']}, accepted by {event['accepted']}{others}\n"
    if event["event"] == "round":
        accuracy = f", accuracy {event['accuracy']['mean']:.1%}" if "accuracy" in event else ""
        return f"round {event['round']}: {event['accepted']} updates, {event['seconds']} s{accuracy}\n"
    if event["event"] == "rehearsed":
        seconds = f" in {event['seconds']} s" if "seconds" in event else ""
        return f"{event['institution']}: {event['answer']}{seconds}\n"
    if event["event"] == "dropped":
        return f"round {event['round']}: {event['institution']} dropped: {event['reason']}\n"
    return ""
