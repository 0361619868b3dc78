"""`confide sweep`: its typer declaration."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from confide.simulations.commands.cli import JsonOption, RunArgument
from confide.simulations.commands.interruption import interruptible


def sweep(
    run_file: RunArgument = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="SECTION.KEY=VALUES", help="LOW:HIGH, LOW:HIGH:log or A,B,C; may be repeated"),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="how many runs")] = 12,
    out: Annotated[Path, typer.Option(metavar="DIR", help="a run directory for each trial")] = Path("runs/sweep"),
    as_json: JsonOption = False,
) -> None:
    """Search for good settings: simulate a run with several, and show them with their scores.

    Optuna chooses each trial's settings from the scores before it. Try settings on public texts of the kind that the
    institutions have: a choice made on private records tells of them, and no epsilon counts that. For the same reason
    there is no --site: every trial is another run, which each institution approves by hand and pays for.
    """
    from confide.common.errors import InputError
    from confide.simulations.studies.prepared import file_of

    if not vary:
        raise InputError("confide sweep varies at least one setting: --vary federation.learning_rate=0.01:0.2:log")
    file = file_of(run_file)
    from confide.simulations import sweep as search

    def tell(event: dict[str, Any]) -> None:
        values = ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("event", "number", "score"))
        typer.echo(f"trial {event['number'] + 1} of {trials}: {values}: {event['score']:.4f}", err=as_json)

    typer.echo(
        f"{trials} trials below {out}; nothing is charged for them: use public or made-up records only", err=as_json
    )
    with interruptible(lambda: "the same command goes on with the trials that are left"):
        table = search(file, vary, out, trials=trials, on_event=tell)
    typer.echo(json.dumps(table.to_dict(orient="records")) if as_json else table.to_string(index=False))
