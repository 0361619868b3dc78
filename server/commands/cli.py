"""The commands `confide server ...` of the operator: Typer declarations only, the work is elsewhere."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from confide.server.commands import admin_client

HomeOption = Annotated[Path, typer.Option("--home", metavar="DIR", help="the server's folder")]
NameArgument = Annotated[str, typer.Argument(metavar="RUN", help="name of a run, as `server status` shows it")]
_HOME = Path("confide-server")


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="new or empty folder")] = _HOME,
    host: Annotated[
        list[str] | None, typer.Option(help="name or address at which institutions reach the server; may be repeated")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="public port")] = 8443,
) -> None:
    """Make a server's folder: its certificate authority, its certificate, an admin token, a commented server.toml."""
    from confide.common.errors import InputError
    from confide.server.home.home import init_home

    if not host:
        raise InputError(
            "--host is missing: the name at which institutions reach this server, for example fl.example.org"
        )
    home = init_home(folder, host, port)
    typer.echo(f"{folder}: server at {home.address}; `confide server start --home {shlex.quote(str(folder))}` serves")


def start(home: HomeOption = _HOME) -> None:
    """Serve until stopped: institutions on the public port, the operator's commands on loopback."""
    import os

    from confide.common.flower import prepare
    from confide.server.home.home import open_home

    opened = open_home(home)
    os.environ["FLWR_HOME"] = str(opened.folder / "flwr")  # else `prepare` makes one that a killed server leaves behind
    prepare()
    from confide.server.daemon.logs import log_json
    from confide.server.daemon.process import serve
    from confide.server.page.pages import page_routes

    recent = log_json()
    serve(
        opened,
        lambda public, admin: typer.echo(json.dumps({"event": "listening", "port": public, "admin_port": admin})),
        lambda shared: page_routes(shared, recent),
    )


def approve(
    request: Annotated[
        Path, typer.Argument(metavar="REQUEST.json", help="request that an institution's `client join` wrote")
    ],
    fingerprint: Annotated[str, typer.Option(help="fingerprint that the institution reads to you by telephone")],
    home: HomeOption = _HOME,
) -> None:
    """Admit an institution whose fingerprint you compared, and write its kit. Repeat the command to rewrite the kit."""
    from confide.common.durable import write_durably
    from confide.common.errors import ConfideError
    from confide.common.protocol.enrolment import read_request, write_json
    from confide.server.home.admission import admit
    from confide.server.home.home import open_home

    asked = read_request(request)
    admitted = admit(open_home(home), asked, fingerprint, str(request))
    path = request.with_name(f"kit-{asked.institution.replace('/', '_')}.json")
    try:
        write_durably(path, write_json(admitted.kit).encode())
    except OSError as error:
        raise ConfideError(
            f"{path}: {error.strerror}; {asked.institution} is approved, and the same command again writes its kit"
        ) from None
    typer.echo(f"{asked.institution} is approved; give it {path}, and read this to it by telephone:")
    typer.echo(f"authority: {admitted.authority}")


def revoke(
    institution: Annotated[
        str, typer.Argument(metavar="INSTITUTION", help="name of the institution, as `server status` shows it")
    ],
    home: HomeOption = _HOME,
) -> None:
    """Shut an institution out, at the latest when the open round ends. To come back it needs new keys and approval."""
    from confide.server.home.home import open_home

    open_home(home).registry.revoke(institution)
    typer.echo(f"{institution} is revoked")


def run(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.toml", help="the run to propose")],
    home: HomeOption = _HOME,
    follow: Annotated[bool, typer.Option("--follow", help="show the rounds, and wait for the end of the run")] = False,
    rehearsal: Annotated[
        bool, typer.Option("--rehearsal", help="rehearse one round on made-up records instead: no data, no charge")
    ] = False,
) -> None:
    """Propose a run to all approved institutions. It starts when enough of them accept.

    With --follow or --rehearsal the exit code is 0 if the run completed, 3 if too few institutions took part, and 1 if
    the run stopped or failed.
    """
    from confide.common.aloud import hash_start
    from confide.server.home.home import open_home
    from confide.server.home.locking import lock_run

    opened, locked = open_home(home), lock_run(home, run_file)
    kind = "rehearsal" if rehearsal else "run"
    name = admin_client.ask(opened, "POST", "/runs", {"run": locked.canonical_json(), "kind": kind})["name"]
    typer.echo(f"{name}: queued, run {hash_start(locked.sha256())}")
    if follow or rehearsal:
        sys.exit(admin_client.follow(opened, name, kind))


def status(
    home: HomeOption = _HOME,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Show runs with their progress, and institutions with connection, versions, rounds and last drop reason."""
    from confide.server.home.home import open_home

    facts = admin_client.ask(open_home(home), "GET", "/status")
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo("\n".join(admin_client.status_lines(facts)))


def page(home: HomeOption = _HOME) -> None:
    """Print a one-time link to the server's page: institutions, the open run live, start, stop, resume, admit.

    The server must run. The link works once, within 15 minutes, in a browser on this machine, or through a tunnel:
    `ssh -L 8444:127.0.0.1:8444 SERVER`. A session ends after 8 hours without use.
    """
    from confide.server.home.home import open_home

    opened = open_home(home)
    path = admin_client.ask(opened, "POST", "/page/links")["path"]
    typer.echo(f"http://127.0.0.1:{opened.config.server.admin_port}{path}")


def stop(name: NameArgument, home: HomeOption = _HOME) -> None:
    """Stop a run after its open round. `server resume` continues it."""
    from confide.server.home.home import open_home

    now = admin_client.ask(open_home(home), "POST", f"/runs/{name}/stop")["status"]
    typer.echo("running; it stops after its open round" if now == "running" else now)


def resume(name: NameArgument, home: HomeOption = _HOME) -> None:
    """Continue a stopped, refused or failed run from its last whole round.

    A completed run sends its adapter to the participants that lack it.
    """
    from confide.server.home.home import open_home

    typer.echo(admin_client.ask(open_home(home), "POST", f"/runs/{name}/resume")["status"])
