"""The `confide` command: a table of commands, each imported on use, so that help is instant."""

import difflib
import importlib
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, get_type_hints

from confide.common.cli.pipes import outlive_readers, print_any_text
from confide.common.errors import ConfideError

if TYPE_CHECKING:
    from click import Command

# command -> (module:function, line of the help)
COMMANDS = {
    "init": ("confide.common.cli.adapters:init", "print a commented run.toml to start from"),
    "plan": (
        "confide.simulations.commands.plan_cli:plan",
        "print cost, noise and signal of a run, before any data is touched",
    ),
    "simulate": ("confide.simulations.commands.cli:simulate", "run a whole federation on this machine"),
    "sweep": ("confide.simulations.commands.sweep_cli:sweep", "search for good settings, by simulations of several"),
    "audit": ("confide.simulations.commands.audit_cli:audit", "attack a run, and show how much epsilon that proves"),
    "evaluate": ("confide.common.cli.adapters:evaluate", "score a finished adapter on a file of records"),
    "predict": ("confide.common.cli.adapters:predict", "use a finished adapter on texts"),
    "export": ("confide.common.cli.adapters:export", "merge a finished adapter into its base model"),
    "data check": ("confide.client.commands.data_cli:check", "find faults, doubles and hints in a file of records"),
    "data suggest": ("confide.client.commands.data_cli:suggest", "choose records to label next, by a finished adapter"),
    "completion": ("confide.common.cli.completion:completion", "print a script that completes commands in bash or zsh"),
    "doctor": ("confide.simulations.commands.doctor_cli:doctor", "find obstacles to simulating a run on this machine"),
    "verify": (
        "confide.common.verify.command:verify",
        "recompute the claims of a run or a ledger, with public libraries alone",
    ),
    "client init": ("confide.client.commands.cli:init", "print a commented site.toml to start from"),
    "client join": ("confide.client.commands.enrolment_cli:join", "make keys and a request, or take a server's kit"),
    "client start": ("confide.client.commands.cli:start", "take part until stopped"),
    "client pause": ("confide.client.commands.cli:pause", "answer no new ask"),
    "client resume": ("confide.client.commands.cli:resume", "answer new asks again"),
    "client doctor": (
        "confide.client.commands.looking_after_cli:doctor",
        "find obstacles to taking part",
    ),
    "client status": (
        "confide.client.commands.looking_after_cli:status",
        "show whether the client runs, and its last answer",
    ),
    "client page": (
        "confide.client.commands.page_cli:page",
        "show all of it in a browser: requests to approve, the budget, what left",
    ),
    "client models list": (
        "confide.client.commands.looking_after_cli:models_list",
        "list finished adapters, and damage to them",
    ),
    "client evaluate": (
        "confide.client.commands.at_home_cli:evaluate",
        "show whether federating helped, on your own held-out records",
    ),
    "client personalise": (
        "confide.client.commands.at_home_cli:personalise",
        "train a shared adapter on at home; the result never leaves",
    ),
    "client check": (
        "confide.client.commands.cli:check",
        "show this institution's answer to a run, and its cost",
    ),
    "client approve": ("confide.client.commands.cli:approve", "agree to a run, by its hash"),
    "client decline": ("confide.client.commands.cli:decline", "say no to a run that waits for approval"),
    "client studies": (
        "confide.client.commands.cli:studies",
        "list studies that were offered, approved, opened or closed here",
    ),
    "client egress": (
        "confide.client.commands.cli:egress",
        "list every answer made from your records that left, and when",
    ),
    "client ledger show": (
        "confide.client.commands.cli:ledger_show",
        "show the budget spent on these people, and the rest",
    ),
    "client ledger export": ("confide.client.commands.cli:ledger_export", "write the rows, for anyone to recompute"),
    "client ledger verify": (
        "confide.client.commands.cli:ledger_verify",
        "check that the live ledger is whole and the newest",
    ),
    "client ledger close": (
        "confide.client.commands.cli:ledger_close",
        "end a study; its unused steps are free again",
    ),
    "client ledger retire": ("confide.client.commands.cli:ledger_retire", "never train on these people again"),
    "server init": ("confide.server.commands.cli:init", "make a server's folder: keys, certificate, settings"),
    "server start": ("confide.server.commands.cli:start", "serve until stopped"),
    "server approve": ("confide.server.commands.cli:approve", "admit an institution, and write its kit"),
    "server revoke": ("confide.server.commands.cli:revoke", "shut an institution out"),
    "server run": ("confide.server.commands.cli:run", "propose a run to all institutions, or rehearse it"),
    "server status": ("confide.server.commands.cli:status", "show runs and institutions"),
    "server page": ("confide.server.commands.cli:page", "print a link to all of it in a browser"),
    "server stop": ("confide.server.commands.cli:stop", "end a run after its open round"),
    "server resume": ("confide.server.commands.cli:resume", "continue a run that was stopped"),
}


def _help(prefix: str = "") -> str:
    """Return the help text of all commands, or of one group."""
    shown = {name: what for name, (_, what) in COMMANDS.items() if f"{name} ".startswith(prefix)}
    width = max(map(len, shown)) + 1
    lines = [
        f"Usage: confide {prefix}COMMAND [OPTIONS]",
        "",
        "Fine-tune a language model across institutions that may not share their data,",
        "under differential privacy that each institution enforces itself.",
        "",
        "Commands:",
        *(f"  {name:<{width}} {what}" for name, what in shown.items()),
        "",
        "`confide COMMAND --help` shows its options. `confide simulate` alone runs the default scenario.",
        "Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by policy, 4 refused by budget, 130 interrupted.",
    ]
    return "\n".join(lines)


def _find(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the longest command with which the arguments begin, and the rest."""
    for length in (3, 2, 1):
        name = " ".join(arguments[:length])
        if name in COMMANDS:
            return name, arguments[length:]
    return "", arguments


def main() -> None:
    """Run one command; our errors, and those of files, become one line and an exit code."""
    outlive_readers()
    print_any_text()
    name, rest = _find(sys.argv[1:])
    if not name:
        _without_command(rest)
    command = command_of(name)
    try:
        command(args=rest, prog_name=f"confide {name}")
    except ConfideError as error:
        sys.exit(_fail(str(error), error.exit_code))
    except OSError as error:  # last resort: a fault of a disk, a permission or a file without a message of our own
        sys.exit(_fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), ConfideError.exit_code))


def command_of(name: str) -> "Command":
    """Return a command of the table."""
    module, _, function = COMMANDS[name][0].partition(":")
    return _command(getattr(importlib.import_module(module), function))


def _command(function: Callable[..., None]) -> "Command":
    """Return a function as a command.

    This puts the help of arguments back: typer 0.20 sets it, and click 8.5, which now has its own, clears it.
    """
    import typer

    typer.core.HAS_RICH = False  # otherwise typer escapes brackets for rich, which prints nothing here
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(function)
    command = typer.main.get_command(app)
    notes = get_type_hints(function, include_extras=True)
    for parameter in command.params:
        for note in getattr(notes.get(str(parameter.name)), "__metadata__", ()):
            vars(parameter)["help"] = note.help
    vars(command)["format_arguments"] = lambda *_: None  # typer lists them
    return command


def _without_command(arguments: list[str]) -> None:
    """Print the help, the version or an error, and end the process."""
    words = [word for word in arguments if not word.startswith("-")]
    group = "".join(f"{word} " for word in words)
    if arguments == ["--version"]:
        print(f"confide {version('confide')}")  # noqa: T201
    elif any(name.startswith(group) for name in COMMANDS) and set(arguments) - set(words) <= {"-h", "--help"}:
        print(_help(group))  # noqa: T201
    else:
        sys.exit(_fail(_unknown(words or arguments), 2))
    sys.exit(0)


def _unknown(words: list[str]) -> str:
    """Return the message about a command that does not exist, with those that are most like it."""
    group = ""
    for word in words:
        if not any(name.startswith(f"{group}{word} ") for name in COMMANDS):
            break
        group += f"{word} "
    typed = "".join(words[len(group.split()) :][:1])
    known = [name.removeprefix(group) for name in COMMANDS if name.startswith(group)]
    close = [f"`confide {group}{name}`" for name in difflib.get_close_matches(typed, known, 2)]
    meant = f"is {' or '.join(close)} meant? " if close else ""
    return f"no command {(group + typed).strip()!r}; {meant}`confide {group}--help` lists all"


def _fail(message: str, code: int) -> int:
    print(f"confide: error: {message}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    main()
