"""A search for settings: one simulation for each trial, chosen by Optuna from those before (the extra ``sweep``)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from confide.common.errors import InputError
from confide.common.model.scores import gain
from confide.simulations.interface.calls import simulate
from confide.simulations.interface.given import Data, Run, read_run, with_data
from confide.simulations.interface.shown import OnEvent

_RANGE = re.compile(r"(?P<low>[^:,]+):(?P<high>[^:,]+)(?P<log>:log)?")
_FURTHEST = 1e15  # below 2**53: whole numbers that a float holds
JOURNAL = "trials.journal"


@dataclass(frozen=True)
class Varied:
    """One setting to vary: among choices, or from ``low`` to ``high``, on a logarithmic scale if ``log``."""

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    def suggest(self, trial: Any) -> Any:
        """Return a value for a trial; a range between whole numbers gives whole ones."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.low.is_integer() and self.high.is_integer():
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return float(f"{trial.suggest_float(self.key, self.low, self.high, log=self.log):.4g}")


def varied(text: str) -> Varied:
    """Return what ``section.key=VALUES`` varies: "0.01:0.2", "0.01:0.2:log", or "4,8,16".

    >>> varied("federation.learning_rate=0.01:0.2:log").low, varied("adapter.layers=all,top:3").choices
    (0.01, ('all', 'top:3'))
    """
    key, equals, values = text.partition("=")
    if not (equals and "." in key and values):
        raise InputError(f"--vary {text!r} must have the form section.key=LOW:HIGH[:log] or section.key=A,B,C")
    if found := _RANGE.fullmatch(values):
        try:
            low, high = float(found["low"]), float(found["high"])
        except ValueError:
            raise InputError(f"--vary {text!r}: a range goes from one number to another, as in 0.01:0.2") from None
        if not low < high or (found["log"] and low <= 0):
            raise InputError(f"--vary {text!r}: a range goes up, and a logarithmic one begins above 0")
        if max(-low, high) > _FURTHEST:
            raise InputError(f"--vary {text!r}: a range ends, within {_FURTHEST:g} of 0")
        return Varied(key, low=low, high=high, log=bool(found["log"]))
    return Varied(key, choices=tuple(values.split(",")))


def sweep(  # noqa: PLR0913 - as many as the command has options
    run: Run,
    vary: Iterable[str | Varied],
    out: str | Path,
    *,
    data: Data = None,
    trials: int = 12,
    quiet: bool = True,
    on_event: OnEvent | None = None,
) -> pandas.DataFrame:
    """Simulate a run with several settings, and return a table of them, the best first.

    A score on public test records decides. Whoever tries settings on private records learns from them, and no epsilon
    counts that: use public texts of the same kind.

    Args:
        run: path of a run.toml or a scenario's name.
        vary: settings, as `varied` reads them.
        out: folder with one run directory a trial; a sweep that was interrupted goes on there.
        data: as of `simulate`.
        trials: how many the folder shall hold at the end.
        quiet: show no progress of single runs.
        on_event: gets the event "trial" with number, settings and score after each one.

    Raises:
        InputError: a setting is bad, Optuna is not installed, or a trial's run is refused.
    """
    if isinstance(run, dict) or not isinstance(run, str | Path | None):
        raise InputError("a sweep changes settings of a file: give the path of a run.toml, or a scenario's name")
    settings = [varied(item) if isinstance(item, str) else item for item in vary]
    if not settings:
        raise InputError("a sweep varies at least one setting: --vary federation.learning_rate=0.01:0.2:log")
    folder, first = Path(out), read_run(run, [])
    lower = gain(first.task.headline, 0.0, 1.0) > 0
    study = _search(folder, first.study.name, max(4, trials // 3), lower=lower)

    def tried(trial: Any) -> float:
        try:
            values = {item.key: item.suggest(trial) for item in settings}
        except ValueError:
            raise InputError(f"{folder} holds trials of other --vary settings; use another --out") from None
        trial.set_user_attr("used", values)  # Optuna keeps numbers as they were before rounding
        changes = [f"{key}={value}" for key, value in values.items()]
        given = with_data(read_run(run, changes), data, folder.absolute() / "data")
        result = simulate(given, out=folder / f"trial-{trial.number:03}", quiet=quiet)
        if on_event:
            on_event({"event": "trial", "number": trial.number, **values, "score": result.metrics.get("mean")})
        return float(result.metrics["mean"])

    done = [trial for trial in study.trials if trial.value is not None]
    study.optimize(tried, n_trials=max(0, trials - len(done)))
    rows = [
        {**trial.user_attrs["used"], "score": trial.value, "trial": trial.number}
        for trial in study.trials
        if trial.value is not None
    ]
    return pandas.DataFrame(rows).sort_values("score", ascending=lower, ignore_index=True)


def _search(folder: Path, name: str, first_trials: int, *, lower: bool) -> Any:
    """Return Optuna's search in a folder, begun or gone on with; its first trials are drawn at random."""
    try:
        import optuna
    except ImportError:
        raise InputError("a sweep needs Optuna; pip install '.[sweep]' in a checkout of Confide") from None
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=name,
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))),
        sampler=optuna.samplers.TPESampler(n_startup_trials=first_trials),
        direction="minimize" if lower else "maximize",
        load_if_exists=True,
    )
