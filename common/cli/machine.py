"""Checks of a machine that `confide doctor` and `confide client doctor` share: memory, disk, device."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import typer

from confide.common.errors import ConfideError
from confide.common.findings import Finding, FindingState

GIB = 2**30

CheckResult = tuple[FindingState, str]


def finding(subject: str, check: Callable[[], CheckResult]) -> Finding:
    """Return the finding of a check; an error of ours or of the system is a problem, in one line."""
    try:
        return Finding(subject, *check())
    except ConfideError as error:
        return Finding(subject, "problem", str(error))
    except (OSError, ImportError, MemoryError) as error:
        return Finding(subject, "problem", " ".join(f"{type(error).__name__}: {error}".split()))


def report(findings: Iterable[Finding]) -> None:
    """Print findings as they come, then their numbers; `typer.Exit` with 1 where there is a problem."""
    states = []
    for found in findings:
        typer.echo(found.line())
        states.append(found.state)
    problems, warnings = states.count("problem"), states.count("warning")
    typer.echo(f"problems: {problems}, warnings: {warnings}")
    if problems:
        raise typer.Exit(1)


def disk(folders: Sequence[Path]) -> CheckResult:
    """Check the space where these folders are, or will be."""
    there = [next(place for place in (folder, *folder.parents) if place.exists()) for folder in folders]
    free, place = min((shutil.disk_usage(place).free, place) for place in there)
    text = f"{free / GIB:.1f} GiB free at {place}"
    if free < GIB:
        return ("problem" if free < GIB / 10 else "warning"), f"{text}; free some: a full disk ends every answer"
    return "ok", text


def memory() -> CheckResult:
    """Check the memory that this machine, or this container, has left."""
    import torch

    from confide.common.model.memory import memory_of

    available = memory_of(torch.device("cpu")).free
    text = f"{available / GIB:.1f} GiB available"
    return ("ok", text) if available >= 2 * GIB else ("warning", f"{text}; a base model and its training may not fit")


def device(names: str, precision: str = "auto") -> CheckResult:
    """Check that the devices of a setting are there, and say in which precision they hold a base model.

    Args:
        names: of devices, as the setting has them.
        precision: of the base, likewise.
    """
    import torch

    from confide.common.model.devices import base_precision, choose_devices

    places = choose_devices(names)
    held = str(base_precision(places[0], precision)).removeprefix("torch.")
    said = [f"{each}, {torch.cuda.get_device_name(each)}" if each.type == "cuda" else str(each) for each in places]
    return "ok", f"{'; '.join(said)}; the base model in {held}"
