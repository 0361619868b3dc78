"""A run's curves in TensorBoard or MLflow: scores, epsilon and answers, all of which the run directory holds anyway."""

import logging
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.server.rounds.run_context import Event

log = logging.getLogger("confide")

_MLFLOW_RUN = "mlflow.run"  # in the run directory, so that a resumed run goes on with its curves
_SECONDS_TO_END = 30.0  # for curves not yet written when a run ends
_MAX_VALUE = 500  # characters of a setting, as MLflow bounds them


class Tracker(Protocol):
    """Keeps numbers by name and round."""

    def log(self, values: dict[str, float], number: int) -> None:
        """Keep the values of a round."""

    def close(self) -> None:
        """Write what is left."""


def values_of(event: Event, epsilon: dict[str, float]) -> dict[str, float]:
    """Return the numbers of a round's end by the name of their curve.

    >>> event = {"round": 2, "accepted": 3, "dropped": ["a: late"], "seconds": 1.5,
    ...          "score": {"mean": 0.5, "per_institution": {"b": 0.5}}}
    >>> values_of(event, {"b": 1.25})
    {'accepted': 3.0, 'dropped': 1.0, 'seconds': 1.5, 'score': 0.5, 'institutions/b': 0.5, 'epsilon': 1.25}
    """
    values = {"accepted": float(event["accepted"]), "dropped": float(len(event["dropped"]))}
    values["seconds"] = float(event["seconds"])
    if "score" in event:
        values["score"] = float(event["score"]["mean"])
        values |= {
            f"institutions/{_plain(name)}": float(value) for name, value in event["score"]["per_institution"].items()
        }
    return values | ({"epsilon": max(epsilon.values())} if epsilon else {})


def _shown(where: str) -> str:
    """Return an address without a name and password, which the log would keep.

    >>> _shown("https://me:secret@mlflow.example.org/x")
    'https://mlflow.example.org/x'
    """
    return re.sub(r"//[^/@]*@", "//", where)


def _plain(name: str) -> str:
    """Return an institution's name with the letters that MLflow allows in a metric's name."""
    return re.sub(r"[^\w ./-]", "_", name, flags=re.ASCII)


def require_tracker(where: str) -> None:
    """Import what a setting needs; `InputError` names the extra to install."""
    if where == "none":
        return
    try:
        if where == "tensorboard":
            import tensorboard.summary  # noqa: F401
        else:
            os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it would tell its makers how it is used
            import mlflow  # noqa: F401

            logging.getLogger("mlflow").setLevel(logging.WARNING)
    except ImportError:
        extra = "tensorboard" if where == "tensorboard" else "mlflow"
        raise InputError(
            f"tracking = {where!r} needs the extra {extra!r}; pip install '.[{extra}]' in a checkout of Confide, "
            'or set tracking = "none"'
        ) from None


@contextmanager
def track(
    run: RunConfig, folder: Path, where: str, spent: Callable[[Event], dict[str, float]]
) -> Iterator[Callable[[Event], None]]:
    """Keep a run's curves while the block lasts.

    A thread of its own writes them, so that a tracking server that is slow or away delays no round. The first error
    ends the curves and is logged; the run goes on.

    Args:
        run: the locked run.
        folder: the run directory.
        where: the setting `settings.Tracking`.
        spent: epsilon by institution after the round of an event.

    Yields:
        A function that takes events.
    """
    if where == "none":
        yield lambda event: None
        return
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    writer = threading.Thread(target=_write, args=(run, folder, where, spent, events), daemon=True)
    writer.start()
    try:
        yield events.put
    finally:
        events.put(None)
        writer.join(_SECONDS_TO_END)
        if writer.is_alive():
            log.warning("tracking: %s does not answer; the last rounds are missing there", _shown(where))


def _write(
    run: RunConfig,
    folder: Path,
    where: str,
    spent: Callable[[Event], dict[str, float]],
    events: "queue.SimpleQueue[Event | None]",
) -> None:
    try:
        tracker: Tracker = _TensorBoard(folder) if where == "tensorboard" else _MLflow(run, folder, where)
        while (event := events.get()) is not None:
            if event["event"] == "round":
                last = event["round"] == run.federation.num_rounds
                due = last or event["round"] % run.evaluation.every == 0  # an epsilon takes a second
                tracker.log(values_of(event, spent(event) if due else {}), event["round"])
        tracker.close()
    except Exception as error:  # noqa: BLE001 - another program's; no run may end by it
        log.warning(
            "tracking: %s failed (%s); the run goes on without curves there", _shown(where), type(error).__name__
        )


class _TensorBoard:
    """Event files in the run directory's folder ``tensorboard``, which W&B's `wandb sync` reads as well."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(folder / "tensorboard"))

    def log(self, values: dict[str, float], number: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step=number)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _MLflow:
    """A run of MLflow in the experiment of the study's name, with the locked settings as its parameters."""

    def __init__(self, run: RunConfig, folder: Path, address: str) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=address)
        kept = folder / _MLFLOW_RUN
        if kept.is_file():
            self._id = kept.read_text(encoding="utf-8")
            return
        known = self._client.get_experiment_by_name(run.study.name)
        experiment = known.experiment_id if known else self._client.create_experiment(run.study.name)
        self._id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        kept.write_text(self._id, encoding="utf-8")
        for name, value in _settings(run):
            self._client.log_param(self._id, name, value)

    def log(self, values: dict[str, float], number: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=number)

    def close(self) -> None:
        self._client.set_terminated(self._id)


def _settings(run: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield the locked run's settings as ``section.key`` and text, without those that are not set."""
    content: dict[str, Any] = run.model_dump(mode="json", exclude={"simulation", "speed"})
    yield "run_sha256", run.sha256()
    for section, values in content.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            if value not in (None, [], {}):
                yield f"{section}.{key}", str(value)[:_MAX_VALUE]
