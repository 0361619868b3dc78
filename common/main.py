"""The `confide` command: one table, imported on use, so that help is instant."""

import importlib
import os
import sys
from importlib.metadata import version

from confide.common.errors import ConfideError

# command -> (module:function, what it does)
COMMANDS = {
    "init": ("confide.common.cli:init", "print a commented run.toml to start from"),
    "plan": ("confide.simulations.cli:plan", "what a run costs and gives, before any data is touched"),
    "simulate": ("confide.simulations.cli:simulate", "run a whole federation on this machine"),
    "evaluate": ("confide.common.cli:evaluate", "score a finished adapter on a file of records"),
    "predict": ("confide.common.cli:predict", "use a finished adapter on texts"),
}


def _help() -> str:
    lines = [
        "Usage: confide COMMAND [OPTIONS]",
        "",
        "Fine-tune a language model across institutions that may not share their data,",
        "under differential privacy that each institution enforces itself.",
        "",
        "Commands:",
        *(f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()),
        "",
        "`confide COMMAND --help` shows its options. `confide simulate` without any runs the default scenario.",
        "Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by policy, 130 interrupted.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run one command; errors of ours become one line and an exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())  # noqa: T201
        sys.exit(0)
    if arguments[0] == "--version":
        print(f"confide {version('confide')}")  # noqa: T201
        sys.exit(0)
    if arguments[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        sys.exit(_fail(f"no command {arguments[0]!r}; the commands are: {known}", 2))
    module, _, function = COMMANDS[arguments[0]][0].partition(":")
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(getattr(importlib.import_module(module), function))
    try:
        app(args=arguments[1:], prog_name=f"confide {arguments[0]}")
    except ConfideError as error:
        sys.exit(_fail(str(error), error.exit_code))
    except BrokenPipeError:  # the reader of a pipe has gone; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _fail(message: str, code: int) -> int:
    print(f"confide: error: {message}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    main()
