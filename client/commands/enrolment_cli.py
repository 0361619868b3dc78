"""`confide client join`: an institution and a server exchange keys. The work is in `enrolment`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from confide.client.commands.cli import SITE, SiteOption
from confide.common.shown import shown

if TYPE_CHECKING:
    from confide.client.site.installation import Site
    from confide.common.protocol.enrolment import Kit


def join(
    address: Annotated[str | None, typer.Argument(metavar="[ADDRESS]", help="address of the server, host:port")] = None,
    kit: Annotated[
        Path | None, typer.Option(metavar="KIT.json", help="kit that the server's operator gave back")
    ] = None,
    authority: Annotated[
        str | None,
        typer.Option(
            metavar="FINGERPRINT", help="fingerprint of the kit's authority, as the operator reads it out [asks for it]"
        ),
    ] = None,
    new_keys: Annotated[bool, typer.Option("--new-keys", help="replace both keys; the ledger stays")] = False,
    site: SiteOption = SITE,
) -> None:
    """Join a server: first with its ADDRESS, then with --kit.

    The first call makes keys here and writes a request. Send the request to the server's operator, and compare the
    fingerprint by telephone. The kit's authority has a fingerprint, too: the operator reads that one to you.
    """
    from confide.client.config import load_site_config
    from confide.client.service.running import only_client
    from confide.client.site.enrolment import accept_kit, make_request, note_server, renew_keys
    from confide.client.site.installation import open_site
    from confide.common.durable import write_durably
    from confide.common.errors import InputError
    from confide.common.protocol.enrolment import read_kit, write_json

    if new_keys and (kit or not address):
        raise InputError(
            "client join --new-keys needs the server's ADDRESS, and no --kit: its operator must approve them"
        )
    if new_keys:  # before the site is opened, which a lost key would prevent
        config = load_site_config(site)
        with only_client(config.state.dir):
            renew_keys(config)
    opened = open_site(site)
    if not new_keys:
        _require_usable_lines(opened)
    if address:
        note_server(opened.config.state.dir, address)
    if kit:
        accepted = read_kit(kit)
        accept_kit(opened, accepted, authority or _ask_for_authority(opened, accepted))
        typer.echo(
            f"joined {shown(accepted.address)}; `confide client start --site {shlex.quote(str(site))}` takes part"
        )
        return
    if not address:
        raise InputError("client join needs the server's ADDRESS, or --kit with what its operator gave back")
    request = make_request(opened)
    path = site.absolute().parent / f"join-{request.institution.replace('/', '_')}.json"
    write_durably(path, write_json(request).encode())
    typer.echo(f"request: {path}\nfingerprint: {request.fingerprint()}\nGive the file to the operator of {address}.")


def _require_usable_lines(site: "Site") -> None:
    """Check the lines for runs approved beforehand: those begin as soon as the client is connected."""
    from confide.client.answers.proposed_runs import approved_runs
    from confide.client.data.line_check import require_usable

    if site.offers:
        runs = approved_runs(site.offers, site.ledger.account())
        require_usable(site.config.dataset, runs, site.config.models.dir)


def _ask_for_authority(site: "Site", kit: "Kit") -> str:
    """Return the authority's fingerprint as a person hears and types it."""
    from confide.client.site.enrolment import check_kit
    from confide.common.errors import InputError

    fingerprint = check_kit(site, kit)
    if sys.stdin is None or not sys.stdin.isatty():
        raise InputError(
            f"client join --kit needs --authority: the fingerprint of {shown(kit.address)}'s authority, as its "
            "operator reads it to you by telephone (`server approve` prints it)"
        )
    typer.echo(f"server {shown(kit.address)}, its authority has the fingerprint {fingerprint}")
    heard: str = typer.prompt("Let its operator read that to you by telephone, and type what you hear")
    return heard
