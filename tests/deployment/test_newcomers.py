"""An institution that comes after the offer: it takes part in the rest of the run, once its people have agreed."""

from pathlib import Path

from support.deployment import POLICY, Deployment
from support.faults import begin, private_records, rounds_charged, run_file


def test_who_missed_the_offer_is_in_as_soon_as_it_has_connected_and_approved(
    deployment: Deployment, base_folder: Path
) -> None:
    begin(deployment, ("mary",))
    run = deployment.propose(run_file(deployment.folder, base_folder, rounds=90, min_clients=1))
    deployment.reaches(run, event="offered", accepted=1)
    for name in ("jude", "anne"):
        deployment.add(name, private_records(), POLICY.replace("= false", "= true") if name == "jude" else POLICY)
        deployment.start_client(name)
    deployment.reaches(run, event="accepted", institution="anne")
    command = "`confide client approve small`"
    deployment.wait(lambda: command in deployment.log("jude"), "jude is not told what it waits for")
    assert command in deployment.confide("client", "status", "--site", "jude/site.toml")
    deployment.confide("client", "approve", "small", "--site", "jude/site.toml")
    deployment.stop("jude")
    deployment.start_client("jude")  # a new connection is offered the run at once, and an old one after a minute
    joined = deployment.reaches(run, event="accepted", institution="jude")["round"]
    deployment.confide("server", "stop", run, "--home", "srv")
    assert deployment.ended(run)["status"] == "stopped"
    deployment.confide("verify", f"srv/runs/{run}")
    answers = {name: told["answer"] for name, told in (deployment.status() or {})["clients"].items()}
    assert answers == dict.fromkeys(("mary", "jude", "anne"), "accepted")
    assert rounds_charged(deployment, "jude")[0] == joined > 1
    assert rounds_charged(deployment, "mary")[0] == 1
