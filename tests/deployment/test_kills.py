"""kill -9: of the server at every place of a round, of clients at every arrow of the release protocol."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.deployment import Deployment
from support.faults import begin, rounds_charged, run_file

from confide.common import failpoints

_SERVER: list[dict[str, Any]] = [
    {"kill_after_event": {"event": "accepted"}},  # mid-aggregation: one update is in, the other is not
    *({"kill_at": {"place": place}} for place in failpoints.OF_A_CHECKPOINT),
]
_CLIENTS: dict[str, dict[str, Any]] = {
    "mary": {"kill_at": {"place": "after-reserve"}},  # before training
    "jude": {"kill_at": {"place": "after-train"}},  # after noise
    "anne": {"kill_at": {"place": "after-seal"}},
    "luke": {"kill_while_sending": {"objects": 4}},  # three of the offer's answer, one of the first update's
}


@pytest.mark.waits
def test_a_server_killed_anywhere_resumes_by_itself_and_nobody_pays_twice(
    deployment: Deployment, base_folder: Path
) -> None:
    begin(deployment, server=_SERVER[0])
    rounds = len(_SERVER) + 2
    run = deployment.propose(run_file(deployment.folder, base_folder, rounds=rounds))
    for following in (*_SERVER[1:], {"kill_after_event": {"event": "round_started", "round": rounds}}):
        assert deployment.ends("server") == -9
        deployment.start_server(following)
    assert deployment.ends("server") == -9  # mid-round
    deployment.start_server({"kill_after_event": {"event": "round", "round": rounds}})  # only the results are left
    assert deployment.ends("server") == -9
    offers = [event for event in deployment.events(run) if event["event"] == "offered"]
    deployment.start_server()
    assert deployment.reaches(run, event="given_out")["missing"] == []
    assert deployment.ended(run)["status"] == "completed"
    assert [event for event in deployment.events(run) if event["event"] == "offered"] == offers
    card = (deployment.folder / "srv" / "runs" / run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"| rounds | {rounds} of {rounds} |" in card
    deployment.confide("verify", f"srv/runs/{run}")
    for name in ("mary", "jude"):
        assert rounds_charged(deployment, name) == list(range(1, rounds + 1))
    privacy = json.loads((deployment.folder / "srv" / "runs" / run / "privacy.json").read_bytes())
    assert [row["num_steps"] for row in privacy["institutions"]] == [rounds, rounds]


@pytest.mark.waits
def test_clients_killed_at_every_arrow_come_back_and_draw_no_noise_twice(
    deployment: Deployment, base_folder: Path
) -> None:
    begin(deployment, tuple(_CLIENTS), **_CLIENTS)
    run = deployment.propose(run_file(deployment.folder, base_folder, rounds=3))
    for name in _CLIENTS:
        assert deployment.ends(name) == -9
        deployment.start_client(name)
    assert deployment.reaches(run, event="given_out")["missing"] == []
    deployment.confide("verify", f"srv/runs/{run}")
    charged = {name: rounds_charged(deployment, name) for name in _CLIENTS}
    # A retry is a charge of its own, out of the plan's three steps: nothing is left for the last round.
    assert charged == {"mary": [1, 1, 2], "jude": [1, 1, 2], "anne": [1, 2, 3], "luke": [1, 2, 3]}
