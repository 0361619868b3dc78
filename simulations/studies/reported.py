"""The report of a simulation with the facts that it was made of, so that an audit can add what it found later."""

import json
from pathlib import Path
from typing import Any

from confide.server.results.report import write_report

_FACTS = "report.json"


def keep_report(folder: Path, facts: dict[str, Any]) -> None:
    """Write report.html into a run's folder, and its facts beside it."""
    (folder / _FACTS).write_text(json.dumps(facts, default=float) + "\n", encoding="utf-8")
    write_report(folder / "report.html", facts)


def add_to_report(folder: Path, attacked: dict[str, Any]) -> bool:
    """Write the report anew with what attacks on the finished adapter found.

    Args:
        folder: of a finished simulation.
        attacked: ``sentence`` and ``shadow_runs``, as `membership.Membership.as_json` has them.

    Returns:
        False if the folder holds no facts, as one of an earlier version of Confide; then nothing is written.
    """
    path = folder / _FACTS
    if not path.is_file():
        return False
    facts = json.loads(path.read_text(encoding="utf-8"))
    keep_report(folder, {**facts, "attacked": attacked})
    return True
