"""A whole federation on one machine, through the same ServerApp and ClientApp as a real one.

data/            Public texts, shared out to imagined institutions.
sites/           The institutions of a simulation.
engines/         The same two apps as a deployment, in this process or on Ray.
studies/         From a run.toml to numbers and to a run directory.
interface/       The same from Python: simulate, plan, predict, evaluate, sweep.
reconstruction/  Attacks that bring back texts from what leaves.
audit/           Attacks on what the guarantee promises, on made-up records.
commands/        `confide simulate`, `confide plan`, `confide sweep` and `confide audit`.

Beside them lie scenarios/ (run.toml files) and benchmarks/ (scripts, not shipped).
"""

import importlib
from typing import Any

_INTERFACE = {"simulate": "calls", "plan": "calls", "predict": "calls", "evaluate": "calls", "sweep": "sweep"}


def __getattr__(name: str) -> Any:
    """Return a function of the interface, imported on use: torch takes seconds, and Flower reads its settings once."""
    if name not in _INTERFACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from confide.common.flower import prepare

    prepare()
    return getattr(importlib.import_module(f"confide.simulations.interface.{_INTERFACE[name]}"), name)
