"""A run of a server as it ends, or fails."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from confide.common.errors import ConfideError, PolicyError
from confide.common.run_config import RunConfig
from confide.server import jobs
from confide.server.queue import QueuedRun
from confide.server.run_directory import RunDirectory
from confide.simulations.grid import SkippingClock


@pytest.mark.parametrize("error", [ConfideError("no quorum"), PolicyError("too few accepted"), KeyError("a bug")])
def test_a_run_that_ends_in_an_error_has_an_account_of_all_that_was_asked(
    make_run: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It was stopped after round 1, and went on: what it said then to have cost must not stay."""
    run = make_run(federation={"num_rounds": 4})
    directory = RunDirectory(tmp_path / "runs" / "a-run", run)
    directory.record({"event": "offered", "declared_units": {"mary": 500}})
    for number in (1, 2):
        directory.record({"event": "round_started", "what": "update", "round": number, "institutions": ["mary"]})
    (directory.path / "privacy.json").write_text("less", encoding="utf-8")

    def serve(strategy: Any) -> Any:
        def app(*rest: Any) -> None:
            assert not (directory.path / "privacy.json").exists(), "a server that is killed now leaves no false claim"
            raise error

        return app

    workshop = SimpleNamespace(initial=lambda: {"a": np.zeros(1, np.float32)}, close=lambda: None)
    monkeypatch.setattr(jobs, "Workshop", lambda *_: workshop)
    monkeypatch.setattr(jobs, "LinkGrid", lambda _: SimpleNamespace(run=SimpleNamespace(run_id=1)))
    monkeypatch.setattr(jobs, "SystemClock", SkippingClock)
    monkeypatch.setattr(jobs, "make_server_app", serve)
    desk: Any = SimpleNamespace(
        queue=SimpleNamespace(run_of=lambda _: run),
        home=SimpleNamespace(runs=tmp_path / "runs", registry=SimpleNamespace(approved=dict)),
        nodes=dict,
    )
    link: Any = SimpleNamespace(run=lambda _: contextlib.nullcontext())
    with pytest.raises(type(error)):
        jobs.carry_out(desk, link, QueuedRun("a-run", "ab" * 16))
    content = json.loads((directory.path / "privacy.json").read_bytes())
    assert content["status"] == "stopped"
    assert [(row["institution"], row["num_steps"]) for row in content["institutions"]] == [("mary", 2)]
