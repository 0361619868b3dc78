"""Warnings before a simulation begins."""

import json
from pathlib import Path

import pytest
from conftest import MakeRun
from support.sites import make_records

from confide.simulations.studies.prepared import check_simulation


@pytest.mark.parametrize(("nominal_units", "left_out"), [(2000, True), (30, False)])
def test_a_simulation_of_institutions_that_a_server_would_leave_out_warns(
    tmp_path: Path, make_run: MakeRun, nominal_units: int, left_out: bool
) -> None:
    """The size that run.toml names counts in the plan; a template's passed unnoticed."""
    path, warnings = tmp_path / "records.jsonl", list[str]()
    path.write_text("".join(json.dumps(record) + "\n" for record in make_records(120)), encoding="utf-8")
    run = make_run(simulation={"data": str(path), "clients": 3}, local={"nominal_units": nominal_units})
    check_simulation(run, warnings.append)
    size = "a server would leave out 3 of 3 institutions: declared_units = 30 must be within 20 times"
    assert [warning.startswith(size) for warning in warnings if "leave out" in warning] == [True] * left_out
