"""`confide client page`. The work is elsewhere."""

import time
from typing import Annotated

import typer

from confide.client.commands.cli import SITE, SiteOption

_IDLE_SECONDS = 1800.0


def page(
    site: SiteOption = SITE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="port on 127.0.0.1; 0 takes any that is free")] = 0,
) -> None:
    """Show the institution in a browser: requests to approve or decline, partners, the budget, what left, pause.

    The command prints a link. It works once, and only on this machine. The page ends after 30 minutes without use,
    and with Ctrl-C. Each button does what the command of its name does.
    """
    from confide.client.page.institution import InstitutionPages
    from confide.common.pages.guard import House
    from confide.common.pages.serving import listen, serve_page
    from confide.common.pages.sessions import Sessions

    sessions, listening = Sessions(_IDLE_SECONDS), listen(port)
    house = House(sessions, "`confide client page` prints a new one.", _told_of_use)
    app = InstitutionPages(site, house).app()
    # It is printed and given to no program: other users of a machine can read the arguments of one.
    typer.echo(f"http://127.0.0.1:{listening.getsockname()[1]}/open/{sessions.new_link()}")
    typer.echo("Open this link in a browser on this machine. It works once. Ctrl-C ends the page.", err=True)
    serve_page(app, listening, sessions)
    typer.echo("the page has ended", err=True)


def _told_of_use() -> None:
    moment = time.strftime("%H:%M:%S")
    typer.echo(f"{moment}: the link was used, and is void now. If that was not you, press Ctrl-C at once.", err=True)
