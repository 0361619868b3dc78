"""Real processes on loopback: a run that survives kill -9 at both ends, and what a server may not do."""

import json
from pathlib import Path

import pytest
from support.deployment import POLICY, Deployment, deployed
from support.faults import begin, judge, private_records, rounds_charged, run_file


@pytest.mark.waits
def test_a_run_survives_kill_9_of_server_and_client_and_nothing_is_charged_twice(
    tmp_path: Path, base_folder: Path
) -> None:
    """With no zygote: every process is started as a user would start it."""
    with deployed(tmp_path) as deployment:
        _survive(deployment, base_folder)
        judge(deployment)


def _survive(deployment: Deployment, base_folder: Path) -> None:
    begin(deployment)
    run = deployment.propose(run_file(deployment.folder, base_folder, rounds=4))
    deployment.reaches(run, event="round_started", round=2)
    deployment.kill("server")
    deployment.kill("mary")
    deployment.start_server()
    deployment.start_client("mary")
    assert deployment.reaches(run, event="given_out")["to"] == 2
    deployment.confide("verify", f"srv/runs/{run}")
    for name in ("mary", "jude"):
        rounds = rounds_charged(deployment, name)
        assert set(rounds) == {1, 2, 3, 4}
        assert len(rounds) <= 5, "one retry of the open round at the most"
        [adapter] = (deployment.folder / name / "models" / "small").iterdir()
        predicted = deployment.confide("predict", adapter, "the film was good", "--base", base_folder)
        assert json.loads(predicted)["prediction"] in ("negative", "positive")


def test_a_server_that_asks_for_too_much_is_declined_and_says_so(deployment: Deployment, base_folder: Path) -> None:
    for name in ("mary", "jude"):
        deployment.add(name, private_records(), POLICY.replace("max_rounds = 1000", "max_rounds = 3"))
    deployment.start_server()
    for name in ("mary", "jude"):
        deployment.start_client(name)
    path = run_file(deployment.folder, base_folder, rounds=4)
    deployment.wait(lambda: [c["status"] for c in deployment.status()["clients"].values()] == ["online"] * 2, "offline")
    errors = deployment.confide("server", "run", path, "--home", "srv", "--follow", fails=True)
    assert "Traceback" not in errors
    [run] = deployment.status()["runs"]
    assert run["status"] == "refused"
    assert "declined" in run["reason"]
    assert "max_rounds" not in run["reason"], "limits stay with the institution"
    assert "max_rounds" in (deployment.folder / "mary" / "state" / "audit.jsonl").read_text(encoding="utf-8")
