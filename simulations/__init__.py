"""A whole federation on one machine, through the same ServerApp and ClientApp as a real one.

data/      Public texts, shared out to imagined institutions.
sites/     The institutions of a simulation.
engines/   The same two apps as a deployment, in this process or on Ray.
studies/   From a run.toml to numbers and to a run directory.
interface/ The same from Python: simulate, plan, predict, evaluate.
commands/  `confide simulate` and `confide plan`.

Beside them lie scenarios/ (run.toml files) and benchmarks/ (scripts, not shipped).
"""

from typing import Any

_INTERFACE = ("simulate", "plan", "predict", "evaluate")


def __getattr__(name: str) -> Any:
    """Return a function of the interface, imported on use: torch takes seconds, and Flower reads its settings once."""
    if name not in _INTERFACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from confide.common.flower import prepare

    prepare()
    from confide.simulations.interface import calls

    return getattr(calls, name)
