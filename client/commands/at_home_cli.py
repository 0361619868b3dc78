"""`confide client evaluate` and `personalise`, as typer declares them. The work is elsewhere."""

import json
from pathlib import Path
from typing import Annotated

import typer

from confide.client.commands.cli import SITE, JsonOption, SiteOption
from confide.common.flower import prepare

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="STUDY, STUDY/RUN or the folder, as `client models list` shows it")
]


def evaluate(
    model: ModelArgument,
    site: SiteOption = SITE,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="page to write [local/evaluation-STUDY-RUN.html]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell if federating helped: base, own adapter alone, shared and personalised one on your held-out records.

    The own adapter is trained first, at home and without noise, in as many steps as the run had. Nothing leaves, and
    nothing is charged.
    """
    prepare()
    from confide.client.commands.at_home import evaluate as compared

    found = compared(site, model, out, _tell)
    typer.echo(json.dumps(found.as_json) if as_json else f"{found.text}\n\npage: {found.page} (do not share it)")


def personalise(model: ModelArgument, site: SiteOption = SITE) -> None:
    """Train a shared adapter on, at home and without noise. The result is not private and never leaves.

    It lies in local/personalised/STUDY/RUN, beside site.toml. Nothing is charged.
    """
    prepare()
    from confide.client.commands.at_home import make_personalised

    folder = make_personalised(site, model, _tell)
    typer.echo(f"{folder}: written. Not private, never leaves: keep it with those who may see the records.")
    typer.echo(f"`confide predict {folder} TEXT` uses it; `confide client evaluate {model}` compares it")


def _tell(line: str) -> None:
    typer.echo(line, err=True)
