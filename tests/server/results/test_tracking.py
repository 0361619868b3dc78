"""The curves of a run in TensorBoard and MLflow."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.settings import Tracking
from confide.server.results import tracking
from confide.server.results.tracking import track
from confide.server.rounds.run_context import Event

MakeRun = Callable[..., RunConfig]
SCORES = {1: 0.25, 2: 0.75}


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    return make_run(federation={"num_rounds": 2}, evaluation={"every": 1})


def _events() -> list[Event]:
    return [{"event": "round_started", "round": 1, "what": "update", "institutions": ["a"]}] + [
        {
            "event": "round",
            "round": number,
            "accepted": number,
            "dropped": [],
            "seconds": 1.5,
            "score": {"mean": score, "per_institution": {"a": score}},
        }
        for number, score in SCORES.items()
    ]


def _tracked(run: RunConfig, folder: Path, where: str, events: list[Event]) -> None:
    with track(run, folder, where, lambda event: {"a": 0.5 * event["round"], "b": 0.1}) as take:
        for event in events:
            take(event)


def test_tensorboard_shows_a_run_s_curves(run: RunConfig, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _tracked(run, tmp_path, "tensorboard", _events())
    kept = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    kept.Reload()
    assert sorted(kept.Tags()["tensors"]) == ["accepted", "dropped", "epsilon", "institutions/a", "score", "seconds"]
    score = [(row.step, row.tensor_proto.float_val[0]) for row in kept.Tensors("score")]
    assert score == list(SCORES.items())
    assert [row.tensor_proto.float_val[0] for row in kept.Tensors("epsilon")] == [0.5, 1.0]


@pytest.mark.waits
def test_mlflow_shows_a_run_s_curves_and_a_resumed_run_goes_on_with_them(run: RunConfig, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    where = f"sqlite:///{tmp_path / 'mlflow.db'}"
    _tracked(run, tmp_path, where, _events()[:2])
    _tracked(run, tmp_path, where, _events()[2:])
    client = MlflowClient(tracking_uri=where)
    experiment = client.get_experiment_by_name(run.study.name)
    assert experiment
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.data.params["run_sha256"] == run.sha256()
    assert kept.info.status == "FINISHED"
    assert [(row.step, row.value) for row in client.get_metric_history(kept.info.run_id, "score")] == [*SCORES.items()]


def test_curves_that_cannot_be_written_end_no_run_and_are_told_in_the_log(
    run: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "confide"):
        _tracked(run, Path("/dev/null"), "tensorboard", _events())
    assert "the run goes on without curves there" in caplog.text


def test_a_tracking_server_that_hangs_delays_no_round(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    hung = threading.Event()

    class _Hangs:
        def __init__(self, *_: Any) -> None:
            hung.wait(30)

    monkeypatch.setattr(tracking, "_MLflow", _Hangs)
    monkeypatch.setattr(tracking, "_SECONDS_TO_END", 0.05)
    with caplog.at_level(logging.WARNING, "confide"):
        _tracked(run, tmp_path, "http://127.0.0.1:9", _events())
    hung.set()
    assert "does not answer" in caplog.text


def test_a_password_in_an_address_reaches_no_log(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise OSError("https://me:secret@mlflow.example.org does not answer")

    monkeypatch.setattr(tracking, "_MLflow", fails)
    with caplog.at_level(logging.WARNING, "confide"):
        _tracked(run, tmp_path, "https://me:secret@mlflow.example.org", _events())
    assert "mlflow.example.org failed" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("value", ["wandb", "tensorboard ", "ftp://x", ""])
def test_an_unknown_place_for_curves_is_refused_with_those_that_are_known(value: str) -> None:
    with pytest.raises(ValidationError, match='must be "none", "tensorboard", or an address of MLflow'):
        TypeAdapter(Tracking).validate_python(value)


@pytest.mark.parametrize(("where", "module"), [("tensorboard", "tensorboard.summary"), ("sqlite:///x.db", "mlflow")])
def test_an_extra_that_is_absent_is_named_before_anything_begins(
    where: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"needs the extra '(tensorboard|mlflow)'; pip install"):
        tracking.require_tracker(where)
