"""Secure sums between real processes: partners by telephone, approval, kills at both ends, one member gone for good."""

import json
from pathlib import Path

import pytest
from support.deployment import POLICY, Deployment
from support.faults import private_records, run_file

from confide.common import failpoints
from confide.common.protocol.enrolment import partner_fingerprint

NAMES = ("mary", "jude", "luke", "anne")
SUM_POLICY = POLICY + "max_epsilon_if_broken = 100.0\ntolerate_colluding = 1\n"


def _begin(
    deployment: Deployment, base: Path, rounds: int = 3, sum_seconds: float = 25.0, **sabotage: dict[str, object]
) -> str:
    """A run of four institutions, of which three at least are in a sum; its name."""
    return deployment.propose(_agreed(deployment, base, rounds, sum_seconds, **sabotage))


def _agreed(
    deployment: Deployment, base: Path, rounds: int = 3, sum_seconds: float = 25.0, **sabotage: dict[str, object]
) -> Path:
    """Four institutions that know each other's keys, and the file of a run that all have approved."""
    for name in NAMES:
        deployment.add(name, private_records(), SUM_POLICY)
    keys = {
        member["institution"]: member["update_key"]
        for member in json.loads((deployment.folder / "srv" / "registry.json").read_text(encoding="utf-8"))
    }
    for name in NAMES:
        partners = "".join(f'{other} = "{partner_fingerprint(keys[other])}"\n' for other in NAMES if other != name)
        site = deployment.folder / name / "site.toml"
        site.write_text(site.read_text(encoding="utf-8") + f"[partners]\n{partners}", encoding="utf-8")
    deployment.start_server(sabotage.get("server"))  # type: ignore[arg-type]
    for name in NAMES:
        deployment.start_client(name, sabotage.get(name))  # type: ignore[arg-type]
    path = sum_file(deployment.folder, base, rounds, sum_seconds)
    first = deployment.ended(deployment.propose(path))
    assert "waiting for approval" in first["reason"]
    for name in NAMES:
        deployment.confide("client", "approve", "small", "--site", f"{name}/site.toml")
    return path


def sum_file(folder: Path, base: Path, rounds: int, sum_seconds: float) -> Path:
    path = run_file(folder, base, rounds=rounds, min_clients=3)
    text = path.read_text(encoding="utf-8")
    sums = f'[federation]\naggregation = "secure-sum"\nweights = "declared"\nsum_seconds = {sum_seconds}\n'
    text = text.replace("[federation]\n", sums).replace("[privacy]\n", "[privacy]\nmax_colluding = 1\n")
    path.write_text(text, encoding="utf-8")
    return path


def _kinds(deployment: Deployment, name: str) -> list[str]:
    return [row["kind"] for row in deployment.rows(name) if row["kind"] in ("reserve", "seal", "release")]


def test_four_institutions_train_under_shared_noise(deployment: Deployment, base_folder: Path) -> None:
    run = _begin(deployment, base_folder)
    assert deployment.reaches(run, event="given_out")["missing"] == []
    for name in NAMES:
        assert _kinds(deployment, name) == ["reserve", "seal", "release"] * 3
        assert not list((deployment.folder / name / "state" / "shares").rglob("*.share"))
    deployment.confide("verify", f"srv/runs/{run}")
    account = json.loads((deployment.folder / "srv" / "runs" / run / "privacy.json").read_text(encoding="utf-8"))
    for row in account["institutions"]:
        assert row["epsilon"] < row["epsilon_if_broken"]
    statements = sorted((deployment.folder / "srv" / "runs" / run / "rounds" / "statements").iterdir())
    assert [path.name for path in statements] == ["0001.json", "0002.json", "0003.json"]


@pytest.mark.waits
def test_a_rehearsal_shows_that_the_masks_cancel(deployment: Deployment, base_folder: Path) -> None:
    path = _agreed(deployment, base_folder)
    told = deployment.confide("server", "run", path, "--home", "srv", "--rehearsal")
    assert [f"{name}: answered in " in told for name in NAMES] == [True] * 4
    assert "the sum of anne, jude, luke, mary is zero: their masks cancel" in told
    for name in NAMES:
        assert _kinds(deployment, name) == []
        assert not list((deployment.folder / name / "state" / "shares").rglob("*.share"))


def test_a_server_killed_after_the_statement_shows_the_same_one(deployment: Deployment, base_folder: Path) -> None:
    run = _begin(deployment, base_folder, server={"kill_at": {"place": "statement-written"}})
    assert deployment.ends("server") == -9
    [path] = (deployment.folder / "srv" / "runs" / run / "rounds" / "statements").iterdir()
    before = path.read_bytes()
    deployment.start_server()
    assert deployment.reaches(run, event="given_out")["missing"] == []
    assert path.read_bytes() == before
    for name in NAMES:
        assert _kinds(deployment, name) == ["reserve", "seal", "release"] * 3


def _fixed(deployment: Deployment, run: str) -> dict[Path, bytes]:
    """Every statement that was made and every masked share that was released, so far and still there."""
    statements = (deployment.folder / "srv" / "runs" / run / "rounds" / "statements").glob("*.json")
    sums = [path for name in NAMES for path in (deployment.folder / name / "state").rglob("*.sum")]
    return {path: path.read_bytes() for path in (*statements, *sums)}


def _asked(deployment: Deployment, run: str) -> list[tuple[int, str]]:
    """The sums that a run has asked for: their rounds and statements."""
    events = deployment.events(run)
    return [(event["round"], event["statement_sha256"]) for event in events if event["event"] == "sum_started"]


@pytest.mark.waits
def test_a_server_killed_anywhere_asks_for_the_same_sum_again(deployment: Deployment, base_folder: Path) -> None:
    """At every place of a statement and of a checkpoint, and as soon as it has asked for a sum or added it up.

    After the last kill one member comes back late: a statement of those who are there would be another.
    """
    places = (*failpoints.OF_A_STATEMENT, *failpoints.OF_A_CHECKPOINT)
    kills: list[dict[str, object]] = [{"kill_at": {"place": place}} for place in places]
    kills += [{"kill_after_event": {"event": event}} for event in ("sum_started", "accepted")]
    rounds = len(kills) + 1
    run, fixed = _begin(deployment, base_folder, rounds, 150.0, server=kills[0]), dict[Path, bytes]()
    for following in (*kills[1:], None):
        assert deployment.ends("server") == -9
        fixed, asked = fixed | _fixed(deployment, run), _asked(deployment, run)
        if following is None:
            deployment.stop("mary")
        deployment.start_server(following)
    deployment.wait(lambda: len(_asked(deployment, run)) > len(asked), "the sum is not asked for again")
    assert _asked(deployment, run)[-1] == asked[-1]
    deployment.start_client("mary")
    assert deployment.reaches(run, event="given_out")["missing"] == []
    assert deployment.ended(run)["status"] == "completed"
    after = _fixed(deployment, run)
    gone = fixed.keys() - after.keys()
    assert {path.suffix for path in gone} <= {".sum"}  # acknowledged, and three rounds old
    assert fixed.items() <= {**after, **{path: fixed[path] for path in gone}}.items()
    assert not [event for event in deployment.events(run) if event["event"] in ("void", "benched", "no_quorum")]
    charged = {name: len(_kinds(deployment, name)) // 3 for name in NAMES}
    assert {name: _kinds(deployment, name) for name in NAMES} == {
        name: ["reserve", "seal", "release"] * count for name, count in charged.items()
    }
    assert charged.pop("mary") >= asked[-1][0]  # who comes late is in again from the round after it accepts
    assert set(charged.values()) == {rounds}
    deployment.confide("verify", f"srv/runs/{run}")


@pytest.mark.waits
def test_a_client_killed_after_its_release_costs_nothing(deployment: Deployment, base_folder: Path) -> None:
    run = _begin(deployment, base_folder, mary={"kill_at": {"place": "after-release"}})
    assert deployment.ends("mary") == -9
    deployment.start_client("mary")
    assert deployment.reaches(run, event="given_out")["missing"] == []
    assert not [event for event in deployment.events(run) if event["event"] == "void"]
    assert _kinds(deployment, "mary") == ["reserve", "seal", "release"] * 3


@pytest.mark.waits
def test_a_member_that_dies_for_good_voids_one_round(deployment: Deployment, base_folder: Path) -> None:
    run = _begin(deployment, base_folder, mary={"kill_at": {"place": "before-release"}})
    assert deployment.ends("mary") == -9
    deployment.reaches(run, event="void", round=1, missing=["mary"])
    assert deployment.reaches(run, event="round", round=3)["accepted"] == 3
    assert _kinds(deployment, "mary") == ["reserve", "seal"]
    assert _kinds(deployment, "jude") == ["reserve", "seal", "release"] * 3
