"""Who may not take part: refused with a reason at its own end, while the others' run goes on to its end."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.deployment import Deployment
from support.faults import begin, private_records, rounds_charged, run_file

from confide.server.home.certificates import make_certificates


def _another_authority(deployment: Deployment, name: str) -> None:
    """The kit pins an authority that the server's certificate does not come from."""
    other = deployment.folder / "other"
    other.mkdir()
    make_certificates(other, ["127.0.0.1"])
    kit = deployment.folder / name / "state" / "kit.json"
    ours, theirs = ((folder / "ca.pem").read_text() for folder in (deployment.folder / "srv" / "keys", other))
    text = kit.read_text(encoding="utf-8")
    kit.write_text(text.replace(ours.replace("\n", "\\n"), theirs.replace("\n", "\\n")), encoding="utf-8")
    assert kit.read_text(encoding="utf-8") != text


def _another_key(deployment: Deployment, name: str) -> None:
    """The key that signs requests is one that nobody approved."""
    key = ec.generate_private_key(ec.SECP384R1())
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (deployment.folder / name / "state" / "node.key").write_bytes(key.private_bytes(*pem))


def test_who_may_not_take_part_is_told_why_and_holds_nobody_up(deployment: Deployment, base_folder: Path) -> None:
    begin(deployment)
    for name in ("wrong-certificate", "unknown-key", "fast-clock", "revoked"):
        deployment.add(name, private_records())
    _another_authority(deployment, "wrong-certificate")
    _another_key(deployment, "unknown-key")
    deployment.confide("server", "revoke", "revoked", "--home", "srv")
    for name in ("wrong-certificate", "unknown-key", "revoked"):
        deployment.start_client(name)
    deployment.start_client("fast-clock", {"clock": 10.0})
    deployment.copy_of_client("mary", "mary-again")
    said = {
        "wrong-certificate": "CERTIFICATE_VERIFY_FAILED",
        "unknown-key": "the key is not approved",
        "revoked": "the key is not approved",
        "fast-clock": "is the clock off",
        "mary-again": "an older connection of this key",
    }
    for name, why in said.items():
        deployment.wait(lambda name=name, why=why: why in deployment.log(name), f"{name} is not told: {why}")
    # Approved and never there: they would be waited for.
    for name in ("wrong-certificate", "unknown-key", "fast-clock"):
        deployment.confide("server", "revoke", name, "--home", "srv")
    run = deployment.propose(run_file(deployment.folder, base_folder))
    assert deployment.reaches(run, event="given_out")["missing"] == []
    deployment.confide("verify", f"srv/runs/{run}")
    assert rounds_charged(deployment, "mary") == rounds_charged(deployment, "jude") == [1, 2, 3]
    for name in said.keys() - {"mary-again"}:
        assert rounds_charged(deployment, name) == []


@pytest.mark.waits
def test_who_is_revoked_in_mid_run_is_out_and_the_others_end_it(deployment: Deployment, base_folder: Path) -> None:
    begin(deployment, ("mary", "jude", "anne"))
    run = deployment.propose(run_file(deployment.folder, base_folder, rounds=20))
    deployment.reaches(run, event="accepted", institution="anne", round=2)
    deployment.confide("server", "revoke", "anne", "--home", "srv")
    assert deployment.reaches(run, event="given_out")
    assert deployment.reaches(run, event="round", round=20)["accepted"] == 2
    assert deployment.ended(run)["status"] == "completed"
    deployment.confide("verify", f"srv/runs/{run}")
    assert len(rounds_charged(deployment, "anne")) < 20
    assert rounds_charged(deployment, "mary") == list(range(1, 21))
