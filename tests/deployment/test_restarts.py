"""A server that somebody stops in the middle of a run, and starts again."""

import signal
from pathlib import Path

import pytest
from support.deployment import Deployment
from support.faults import begin, rounds_charged, run_file


@pytest.mark.waits
def test_a_server_that_a_signal_ends_in_a_round_resumes_at_its_next_start(
    deployment: Deployment, base_folder: Path
) -> None:
    begin(deployment)
    run = deployment.propose(run_file(deployment.folder, base_folder, rounds=4))
    for round_, number in ((1, signal.SIGTERM), (3, signal.SIGINT)):
        deployment.reaches(run, event="round_started", round=round_)
        deployment.processes["server"].send_signal(number)
        assert deployment.ends("server") == 0
        assert '"running"' in (deployment.folder / "srv" / "queue" / f"{run}.json").read_text(encoding="utf-8")
        deployment.start_server()
    assert deployment.reaches(run, event="given_out")["missing"] == []
    assert deployment.ended(run)["status"] == "completed"
    for name in ("mary", "jude"):
        assert rounds_charged(deployment, name) == [1, 2, 3, 4]
    assert '"level": "error"' not in deployment.log("server")
