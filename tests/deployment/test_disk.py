"""A disk that is full, at the ledger, at the outbox, at the checkpoint; and files that are not what was written."""

import re
from pathlib import Path

import pytest
from support.deployment import Deployment
from support.faults import begin, rounds_charged, run_file
from support.sabotage import can_mount


def _refusals(deployment: Deployment, name: str) -> str:
    return (deployment.folder / name / "state" / "refusals.jsonl").read_text(encoding="utf-8")


@pytest.mark.waits
def test_institutions_whose_disk_is_full_are_left_out_until_there_is_space(
    deployment: Deployment, base_folder: Path
) -> None:
    rounds, full = 9, deployment.folder / "disk-is-full"
    full.touch()
    outbox = {"full_after": {"place": "after-train", "until": "before-reserve"}}
    names = ("mary", "luke", "jude", "anne", *("paul",) * can_mount())
    begin(deployment, names, mary=outbox, luke={"full_ledger": 1}, paul={"small_disk": "paul/state/outbox"})
    run = deployment.propose(run_file(deployment.folder, base_folder, rounds=rounds))
    for name in ("mary", "luke"):
        assert deployment.reaches(run, event="dropped", institution=name)["reason"] == "declined"
    full.unlink()
    full_at = deployment.reaches(run, event="round")["round"]
    deployment.reaches(run, event="given_out")
    deployment.confide("verify", f"srv/runs/{run}")
    taken = [event for event in deployment.events(run) if event["event"] == "accepted"]
    assert [event["round"] for event in taken if event["institution"] == "jude"] == list(range(1, rounds + 1))
    assert [event for event in taken if event["institution"] == "mary" and event["round"] > full_at], "mary stays out"
    assert rounds_charged(deployment, "mary") == list(range(1, rounds + 1)), "what was computed was not charged"
    assert len(rounds_charged(deployment, "luke")) < rounds, "charged though the ledger is full"
    assert "the ledger cannot be used: database or disk is full" in _refusals(deployment, "luke")
    if "paul" in names:
        assert len([event for event in taken if event["institution"] == "paul"]) <= 1, "its disk has one page"
        assert "cannot be written: No space left on device; nothing was sent" in _refusals(deployment, "paul")


def test_a_run_whose_checkpoint_has_no_space_says_so_and_goes_on_when_there_is(
    deployment: Deployment, base_folder: Path
) -> None:
    full = deployment.folder / "disk-is-full"
    full.touch()
    begin(deployment, server={"full_after": {"place": "checkpoint-begun"}})
    run = deployment.propose(run_file(deployment.folder, base_folder))
    # It is told twice; in between the server tries to write down that the run is stopped.
    told = re.compile("No space left on device.*it is tried again")
    deployment.wait(lambda: told.search(deployment.log("server")), "the server says nothing")
    assert deployment.events(run)[-1]["event"] != "given_out"
    full.unlink()
    assert deployment.reaches(run, event="given_out")["missing"] == []
    assert deployment.ended(run)["status"] == "completed"
    deployment.confide("verify", f"srv/runs/{run}")
    for name in ("mary", "jude"):
        assert rounds_charged(deployment, name) == [1, 2, 3]


def _stopped_after_a_round(deployment: Deployment, base: Path, rounds: int) -> tuple[str, Path]:
    """A run that an operator has stopped, and the folder of its last round."""
    run = deployment.propose(run_file(deployment.folder, base, rounds=rounds))
    deployment.reaches(run, event="round", round=2)
    deployment.confide("server", "stop", run, "--home", "srv")
    assert deployment.ended(run)["status"] == "stopped"
    return run, max((deployment.folder / "srv" / "runs" / run / "rounds").glob("[0-9]*"))


def _damage(path: Path) -> bytes:
    """DatabaseTurn a byte in the middle over; what was there before."""
    before = path.read_bytes()
    middle = len(before) // 2
    path.write_bytes(before[:middle] + bytes([before[middle] ^ 0xFF]) + before[middle + 1 :])
    return before


@pytest.mark.waits
def test_damaged_files_cost_nobody_a_second_charge(deployment: Deployment, base_folder: Path) -> None:
    """The checkpoint, so that the round is asked for again; an answer to it in an outbox; and link.db."""
    begin(deployment, ("mary", "jude", "anne"))
    rounds = 30  # more than are done before the operator stops it
    run, last = _stopped_after_a_round(deployment, base_folder, rounds)
    _damage(last / "training.safetensors")
    newest = max(
        (deployment.folder / "mary" / "state" / "outbox").rglob("*.answer"), key=lambda path: path.stat().st_mtime
    )
    _damage(newest)
    deployment.kill("server")
    (deployment.folder / "srv" / "link.db").write_bytes(b"this is no database " * 1000)
    deployment.start_server()
    deployment.confide("server", "resume", run, "--home", "srv")
    damaged = int(last.name)
    again = deployment.reaches(run, event="dropped", round=damaged)
    assert (again["institution"], again["reason"]) == ("mary", "declined")
    deployment.reaches(run, event="round", round=damaged + 1)
    deployment.confide("server", "stop", run, "--home", "srv")
    assert deployment.ended(run)["status"] == "stopped"
    deployment.confide("verify", f"srv/runs/{run}")
    for name in ("mary", "jude", "anne"):
        charged = rounds_charged(deployment, name)
        assert charged == sorted(set(charged))
    assert "its sealed answer is gone from the outbox, or was changed" in _refusals(deployment, "mary")


@pytest.mark.waits
def test_what_cannot_be_mended_stops_with_a_reason(deployment: Deployment, base_folder: Path) -> None:
    """A ``state.json``: nobody knows what was accepted. A ledger: nobody knows what was spent."""
    begin(deployment)
    run, last = _stopped_after_a_round(deployment, base_folder, 30)
    state = (last / "state.json").read_bytes()
    (last / "state.json").write_bytes(state[:-20])
    deployment.confide("server", "resume", run, "--home", "srv")
    deployment.wait(lambda: _reason(deployment, run) != "", "no reason is given")
    assert "put it back from a backup" in _reason(deployment, run)
    (last / "state.json").write_bytes(state)
    deployment.stop("mary")
    ledger = deployment.folder / "mary" / "state" / "ledger.db"
    whole = {path: path.read_bytes() for path in ledger.parent.glob("ledger.db*")}  # with its log of late writes
    for path in whole:
        path.unlink()
    ledger.write_bytes(b"no ledger" * 1000)
    deployment.start_client("mary")
    assert deployment.ends("mary") == 1
    assert "ledger.db: not a ledger, or a damaged one" in deployment.log("mary")
    for path, content in whole.items():
        path.write_bytes(content)
    deployment.start_client("mary")
    deployment.confide("server", "resume", run, "--home", "srv")
    reached = int(last.name) + 1
    deployment.reaches(run, event="round", round=reached)
    deployment.confide("server", "stop", run, "--home", "srv")
    assert rounds_charged(deployment, "mary")[:reached] == list(range(1, reached + 1))


def _reason(deployment: Deployment, run: str) -> str:
    runs = (deployment.status() or {"runs": []})["runs"]
    reasons = [item["reason"] for item in runs if item["name"] == run and item["status"] == "stopped"]
    return next((str(reason) for reason in reasons if "after round" not in reason), "")
