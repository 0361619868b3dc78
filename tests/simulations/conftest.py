"""Small federations on the tiny BERT, and the `confide` command inside this process."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.sites import make_records

from confide.common.cli.main import main
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model
from confide.server.rounds.run_context import Event, RunState
from confide.simulations.engines.federation import Federation, simulate, start
from confide.simulations.engines.grid import Faults, SkippingClock, no_faults
from confide.simulations.sites.simulated_sites import SimulatedSites, simulated_sites

Confide = Callable[..., tuple[int, str, str]]
MakeRun = Callable[..., RunConfig]
Federate = Callable[..., "Ran"]


@dataclass
class Ran:
    """A federation and what it told on its way."""

    state: RunState
    sites: SimulatedSites
    events: list[Event] = field(default_factory=list)
    saved: list[list[dict[str, str]]] = field(default_factory=list)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def accepted(self) -> dict[str, int]:
        return {item.name: item.accepted for item in self.state.institutions.values()}


@pytest.fixture
def locked(make_run: MakeRun, base_folder: Path) -> MakeRun:
    """``locked(**sections)``: a locked run of two rounds in which every second unit of 20 is drawn."""

    def factory(**sections: dict[str, Any]) -> RunConfig:
        defaults = {"federation": {"num_rounds": 2}, "local": {"nominal_units": 20, "sampling_probability": 0.5}}
        merged = {name: {**defaults.get(name, {}), **sections.get(name, {})} for name in {**defaults, **sections}}
        return lock(make_run(**merged), hash_model(base_folder))

    return factory


@pytest.fixture
def federate(locked: MakeRun, tmp_path: Path) -> Federate:
    """``federate(run, faults=..., count=...)``: a federation of site-0, site-1, ... on nodes 1000, 1001, ..."""

    def run_it(run: RunConfig | None = None, *, faults: Faults = no_faults, count: int = 3, public: bool = True) -> Ran:
        private = {f"site-{number}": make_records(8) for number in range(count)}
        events: list[Event] = []
        saved: list[list[dict[str, str]]] = []
        this = run or locked()
        sites = simulated_sites(this, lambda _: private, tmp_path / "local")
        federation = Federation(
            this,
            sites,
            {"public": make_records(4)} if public else {},
            events.append,
            lambda number, state, accepted, lineage: saved.append(accepted),
        )
        ran = Ran(start(federation, SkippingClock()), sites, events, saved)
        simulate(federation, ran.state, faults)
        return ran

    return run_it


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was computed before a test decides it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def run_file(tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run.toml of two rounds for three institutions beside its data.jsonl, in the current folder."""
    monkeypatch.chdir(tmp_path)
    records = [
        {**record, "site": f"clinic {number % 3}", "patient": f"p{number // 2}"}
        for number, record in enumerate(make_records(60))
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    path = tmp_path / "run.toml"
    path.write_text(
        f"""
[study]
name = "small"
[model]
base = {json.dumps(str(base_folder))}
[task]
labels = ["negative", "positive"]
max_length = 64
[federation]
num_rounds = 2
[local]
nominal_units = 20
[privacy]
noise_multiplier = 4.0
[simulation]
data = "data.jsonl"
clients = 3
[speed]
device = "cpu"
tokens_per_micro_batch = 128
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def confide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Confide:
    """``confide("simulate", run_file, "--json")``: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["confide", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        output, errors = capsys.readouterr()
        return int(stopped.value.code or 0), output, errors

    return call


@pytest.fixture
def settings() -> Callable[..., list[str]]:
    """``settings("a.b=1", "c.d=2")``: as options of the command."""
    return lambda *pairs: [part for pair in pairs for part in ("--set", pair)]
