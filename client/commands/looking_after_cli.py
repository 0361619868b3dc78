"""`confide client doctor`, `status` and `models list`: looking after a client. The work is elsewhere."""

import json
import shlex

import typer

from confide.client.commands.cli import SITE, JsonOption, SiteOption


def doctor(site: SiteOption = SITE) -> None:
    """Report obstacles to taking part: server, clock, ledger, disk, data, base models, device.

    Only a TLS handshake and one GET of /health are sent. Lines of the data that no round would use are listed in
    local/doctor.txt, beside site.toml. Exit code 1: a problem; warnings do not count.
    """
    from confide.client.commands.doctor import examine
    from confide.common.cli.machine import report

    report(examine(site))


def status(site: SiteOption = SITE, as_json: JsonOption = False) -> None:
    """Show whether the client runs, is connected or paused, and its last ask and answer. Reads files alone."""
    from confide.client.steward.status import status_facts, status_text

    facts = status_facts(site)
    typer.echo(json.dumps(facts) if as_json else status_text(facts))


def models_list(site: SiteOption = SITE, as_json: JsonOption = False) -> None:
    """List finished adapters that came here, each checked against its hashes, with the command that uses it."""
    from confide.client.commands.models import list_adapters

    adapters = list_adapters(site)
    if as_json:
        typer.echo(json.dumps(adapters))
        return
    for adapter in adapters:
        whole = f"confide predict {shlex.quote(adapter['folder'])} TEXT"
        trouble = f"{', '.join(adapter['files'])}; ask the server's operator for it again"
        shown = whole if adapter["state"] == "whole" else trouble
        typer.echo(f"{adapter['study']} {adapter['run']}: {adapter['state']}: {shown}")
    if not adapters:
        typer.echo("none yet")
