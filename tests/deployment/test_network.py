"""A line that is cut in mid-round, for longer than the server counts a silent client as alive."""

import time
from pathlib import Path

import pytest
from support.deployment import Deployment
from support.faults import private_records, rounds_charged, run_file
from support.forwarder import forwarded


@pytest.mark.waits
@pytest.mark.parametrize("seconds", [25, 90])  # the lease is 20 s
def test_a_run_goes_on_when_the_line_is_whole_again(deployment: Deployment, base_folder: Path, seconds: int) -> None:
    with forwarded(deployment.port) as line:
        deployment.add("mary", private_records(), port=line.port)
        deployment.add("jude", private_records())
        deployment.start_server()
        for name in ("mary", "jude"):
            deployment.start_client(name)
        run = deployment.propose(run_file(deployment.folder, base_folder, rounds=4, deadline=300.0))
        deployment.reaches(run, event="round_started", round=2)
        line.passing.clear()
        time.sleep(seconds)
        line.passing.set()
        assert deployment.reaches(run, event="given_out")["missing"] == []
        reached = deployment.events(run)
        deployment.stop("mary")
    assert not [event for event in reached if event["event"] == "dropped"]
    assert rounds_charged(deployment, "mary") == rounds_charged(deployment, "jude") == [1, 2, 3, 4]
    ended = {event["round"]: event["time"] for event in reached if event["event"] == "round"}
    assert max(ended[number] - ended[number - 1] for number in (2, 3, 4)) > seconds / 2, "the line was never cut"


@pytest.mark.waits
def test_the_others_go_on_without_an_institution_that_is_cut_off(deployment: Deployment, base_folder: Path) -> None:
    with forwarded(deployment.port) as line:
        deployment.add("mary", private_records(), port=line.port)
        for name in ("jude", "anne"):
            deployment.add(name, private_records())
        deployment.start_server()
        for name in ("mary", "jude", "anne"):
            deployment.start_client(name)
        run = deployment.propose(run_file(deployment.folder, base_folder, rounds=6, deadline=25.0))
        deployment.reaches(run, event="round", round=1)
        line.passing.clear()
        deployment.reaches(run, event="dropped", institution="mary")
        line.passing.set()
        deployment.reaches(run, event="given_out")
        deployment.stop("mary")
    dropped = [event for event in deployment.events(run) if event["event"] == "dropped"]
    assert ("mary", "no answer before the deadline") in {(event["institution"], event["reason"]) for event in dropped}
    for name in ("jude", "anne"):
        assert rounds_charged(deployment, name) == [1, 2, 3, 4, 5, 6]
    deployment.confide("verify", f"srv/runs/{run}")
