"""Real processes on loopback: a run that survives kill -9 at both ends, and what a server may not do."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.deployment import POLICY, Deployment, deployed
from support.faults import begin, judge, private_records, rounds_charged, run_file
from support.zygote import Zygote

from confide.client.steward.status import status_facts


def test_a_run_survives_kill_9_of_server_and_client_and_charges_nothing_twice(
    deployment: Deployment, base_folder: Path
) -> None:
    _survive(deployment, base_folder)


@pytest.mark.waits
def test_a_run_whose_processes_a_user_would_start_survives_kill_9_too(
    tmp_path: Path, base_folder: Path, zygote: Zygote
) -> None:
    """Not forked, and every wait as long as it is."""
    with deployed(tmp_path, zygote, fork_processes=False) as deployment:
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
    assert deployment.reaches(run, event="given_out")["missing"] == []
    deployment.confide("verify", f"srv/runs/{run}")
    for name in ("mary", "jude"):
        # Who is killed between RESERVE and SEAL charges the open round again, and the plan of four steps has no fifth.
        killed_in_between = [[1, 2, 2, 3]] if name == "mary" else []
        assert rounds_charged(deployment, name) in ([1, 2, 3, 4], *killed_in_between)
        [adapter] = (deployment.folder / name / "models" / "small").iterdir()
        predicted = deployment.confide("predict", adapter, "the film was good", "--base", base_folder)
        assert json.loads(predicted)["prediction"] in ("negative", "positive")


def test_a_rehearsal_needs_no_record_charges_nothing_and_says_who_can_take_part(
    deployment: Deployment, base_folder: Path
) -> None:
    for name, policy in (("mary", POLICY), ("jude", POLICY.replace("max_rounds = 1000", "max_rounds = 3"))):
        deployment.add(name, private_records(), policy)
        (deployment.folder / name / "data.jsonl").unlink()
    deployment.start_server()
    for name in ("mary", "jude"):
        deployment.start_client(name)
    path = run_file(deployment.folder, base_folder, rounds=4)
    deployment.refused("server", "run", path, "--home", "srv", "--rehearsal")
    [rehearsal] = deployment.status()["runs"]
    assert (rehearsal["status"], rehearsal["reason"][:7]) == ("refused", "1 of 2 ")
    answers = {event["institution"]: event["answer"] for event in deployment.events(rehearsal["name"])}
    assert answers == {"mary": "answered", "jude": "declined"}
    path.write_text(path.read_text(encoding="utf-8").replace("min_clients = 2", "min_clients = 1"), encoding="utf-8")
    told = deployment.confide("server", "run", path, "--home", "srv", "--rehearsal")
    assert "mary: answered in " in told
    assert "jude: declined in " in told
    for name in ("mary", "jude"):
        with sqlite3.connect(deployment.folder / name / "state" / "ledger.db") as ledger:
            assert ledger.execute("SELECT count(*) FROM rows").fetchone() == (0,)


def test_a_server_that_asks_for_too_much_is_declined_and_may_ask_again(
    deployment: Deployment, base_folder: Path
) -> None:
    for name in ("mary", "jude"):
        deployment.add(name, private_records(), POLICY.replace("max_rounds = 1000", "max_rounds = 3"))
    deployment.start_server()
    for name in ("mary", "jude"):
        deployment.start_client(name)
    path = run_file(deployment.folder, base_folder, rounds=4)
    deployment.wait(lambda: [c["status"] for c in deployment.status()["clients"].values()] == ["online"] * 2, "offline")
    told, errors = deployment.refused("server", "run", path, "--home", "srv", "--follow")
    assert "offered to 2, accepted by 0; " in told
    assert told.count("declined") == 4, "each in the answers, and in the reason at the end"
    assert "Traceback" not in errors
    [run] = deployment.status()["runs"]
    assert run["status"] == "refused"
    assert "declined" in run["reason"]
    assert "max_rounds" not in run["reason"], "limits stay with the institution"
    assert "max_rounds" in (deployment.folder / "mary" / "state" / "refusals.jsonl").read_text(encoding="utf-8")
    for name in ("mary", "jude"):
        site = deployment.folder / name / "site.toml"
        site.write_text(site.read_text(encoding="utf-8").replace("max_rounds = 3", "max_rounds = 4"), encoding="utf-8")
    assert deployment.confide("server", "resume", run["name"], "--home", "srv").strip() in ("queued", "running")
    assert deployment.reaches(run["name"], event="given_out")["missing"] == []
    assert deployment.ended(run["name"])["status"] == "completed"
    deployment.confide("verify", f"srv/runs/{run['name']}")
    assert rounds_charged(deployment, "mary") == rounds_charged(deployment, "jude") == [1, 2, 3, 4]


def test_a_client_tells_what_it_does_and_is_the_only_one(deployment: Deployment, base_folder: Path) -> None:
    site = deployment.add("mary", private_records())

    def status() -> dict[str, Any]:
        return status_facts(site)

    assert not status()["running"]
    deployment.confide("client", "doctor", "--site", site, fails=True)
    deployment.start_server()
    doctor = deployment.confide("client", "doctor", "--site", site)
    assert f"ok       server: 127.0.0.1:{deployment.port}" in doctor
    assert "ok       clock" in doctor
    deployment.start_client("mary")
    deployment.wait(lambda: status()["connected"], "not connected")
    assert f"process {status()['pid']}; stop that one first" in deployment.confide(
        "client", "start", "--site", site, fails=True
    )
    deployment.confide("client", "ledger", "show", "--site", site)
    deployment.confide("client", "pause", "--site", site)
    assert (status()["running"], status()["paused"]) == (True, True)
    deployment.confide("client", "resume", "--site", site)
    run = deployment.propose(run_file(deployment.folder, base_folder, rounds=1, min_clients=1))
    deployment.reaches(run, event="given_out")
    told = json.loads(deployment.confide("client", "status", "--site", site, "--json"))
    assert told["studies_open"] == {"small": {"rounds_answered": 1}}
    assert told["last_ask"]["study"] == "small"
    assert told["last_egress"]["round"] == 1
    [adapter] = json.loads(deployment.confide("client", "models", "list", "--site", site, "--json"))
    assert (adapter["study"], adapter["state"]) == ("small", "whole")
    deployment.kill("server")
    deployment.wait(lambda: not status()["connected"], "still connected to nobody")
    deployment.kill("mary")
    assert not status()["running"]
