"""Other keys, at either end, by the commands of docs/deployment.md: the old ones are out, and no ledger forgets."""

import re
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from support.deployment import POLICY, Deployment
from support.faults import private_records, rounds_charged, run_file

_DOCS = Path(__file__).parents[2] / "docs" / "deployment.md"


def _documented(words: str) -> str:
    """The block of commands that holds these words, for a server on this machine."""
    blocks = re.findall(r"```sh\n(.*?)```", _DOCS.read_text(encoding="utf-8"), re.DOTALL)
    [block] = [block for block in blocks if words in block]
    return str(block).replace("DNS:", "IP:").replace("fl.example.org", "127.0.0.1").replace("cd fl/", "cd srv/")


def _approve(deployment: Deployment, name: str, *options: object) -> None:
    """`client join ADDRESS` with these options, the operator's approval, and the kit."""
    site, home = f"{name}/site.toml", deployment.folder / name
    shown = deployment.confide("client", "join", f"127.0.0.1:{deployment.port}", "--site", site, *options)
    [fingerprint] = re.findall(r"fingerprint: (\S+)", shown)
    if options:
        said = deployment.confide(
            "server", "approve", home / f"join-{name}.json", "--fingerprint", fingerprint, "--home", "srv", fails=True
        )
        assert "is approved already; revoke it first" in said
        deployment.confide("server", "revoke", name, "--home", "srv")
    request, kit = home / f"join-{name}.json", home / f"kit-{name}.json"
    shown = deployment.confide("server", "approve", request, "--fingerprint", fingerprint, "--home", "srv")
    [authority] = re.findall(r"authority: (\S+)", shown)
    deployment.confide("client", "join", "--kit", kit, "--authority", authority, "--site", site)


def _carry_out(deployment: Deployment, base_folder: Path, study: str) -> None:
    run = deployment.propose(run_file(deployment.folder, base_folder, study=study))
    assert deployment.reaches(run, event="given_out")["missing"] == []
    assert not [event for event in deployment.events(run) if event["event"] == "dropped"]
    deployment.confide("verify", f"srv/runs/{run}")


@pytest.mark.waits
def test_new_keys_and_a_new_authority_leave_the_ledger_whole(deployment: Deployment, base_folder: Path) -> None:
    for name in ("mary", "jude"):
        deployment.add(name, private_records(), POLICY.replace('["small"]', '["small", "second"]'))
        deployment.start_client(name)
    deployment.start_server()
    _carry_out(deployment, base_folder, "small")
    before = deployment.rows("mary")
    site = deployment.folder / "mary" / "site.toml"
    said = deployment.confide("client", "join", "127.0.0.1:1", "--new-keys", "--site", site, fails=True)
    assert "stop that one first" in said, "a client that runs would go on with the old keys"
    deployment.stop("mary")
    deployment.copy_of_client("mary", "mary-of-before")
    _approve(deployment, "mary", "--new-keys")
    assert deployment.rows("mary") == before
    told = "the key is not approved"
    deployment.wait(lambda: told in deployment.log("mary-of-before"), "the old keys are not told that they are out")
    deployment.kill("mary-of-before")

    deployment.stop("jude")
    deployment.kill("server")
    deployment.confide("server", "init", "new", "--host", "127.0.0.1")
    for path in (deployment.folder / "new" / "keys").iterdir():
        path.rename(deployment.folder / "srv" / "keys" / path.name)
    deployment.start_server()
    for name in ("mary", "jude"):
        _approve(deployment, name)
        deployment.start_client(name)
    _carry_out(deployment, base_folder, "second")
    assert deployment.rows("mary")[: len(before)] == before
    assert rounds_charged(deployment, "mary") == [1, 2, 3, 1, 2, 3]
    deployment.confide("verify", deployment.folder / "mary" / "state" / "ledger.db")


def test_a_certificate_by_the_same_authority_needs_no_other_kit(deployment: Deployment) -> None:
    site = deployment.add("mary", private_records())
    keys = deployment.folder / "srv" / "keys"
    old = (keys / "tls.pem").read_bytes()
    for renewed in (False, True):
        if renewed:
            deployment.kill("server")
            subprocess.run(
                ["bash", "-ec", _documented("openssl req")], cwd=deployment.folder, check=True, capture_output=True
            )
            assert (keys / "tls.pem").read_bytes() != old
        deployment.start_server()
        said = deployment.confide("client", "doctor", "--site", site)
        assert f"ok       server: 127.0.0.1:{deployment.port}" in said
        strict = ssl.create_default_context(cafile=str(keys / "ca.pem"))
        strict.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        plain = socket.create_connection(("127.0.0.1", deployment.port))
        with strict.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
            assert secured.version() == "TLSv1.3"
