"""The trial and the pods of the charts, run as what they ask for, but for the engine. `make deploy-check` runs this.

Their commands run on volumes of this machine: as their user, without rights, on a read-only root, without a route.
"""

import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from charts.pretend import UID, Container, Mount
from charts.rendered import CHARTS, NEEDED, ROOT, TOOLS, render

pytestmark = pytest.mark.waits
COMPOSE = ROOT / "deploy" / "compose"
INSTITUTIONS = ("north", "south", "west")
_SITE = """
[institution]
name = "st-mary"
[dataset]
id = "patients-st-mary"
path = "/data/reviews.jsonl"
declared_units = 300
[policy]
max_epsilon = 4.0
max_delta = 1e-5
min_noise_multiplier = 0.5
max_steps = 200
max_rounds = 200
max_sampling_probability = 0.25
min_clip_norm = 0.1
max_head_weight = 1.0
min_release_seconds = 1.0
studies = ["trial"]
base_models = ["any"]
[state]
anchor = "/srv/confide-anchor"
"""


def _folder(path: Path, mode: int) -> Path:
    """A volume: the kubelet gives it to the group (2770), docker gives the image's folder (0700)."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, 0 if mode == 0o2770 else UID, UID)
    path.chmod(mode)
    return path


def _wait(until: Callable[[], bool], container: Container, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, container.log()
        time.sleep(1)


def _is_connected(folder: Path) -> bool:
    """The news of a client's status file, which `confide client status` shows."""
    file = folder / "state" / "status.json"
    return file.exists() and json.loads(file.read_bytes())["connected"] is True


def _health(port: int) -> str:
    """What the kubelet's probe sees, which checks no certificate."""
    plain = ssl.create_default_context()
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/health", context=plain, timeout=5) as answer:
            return str(answer.status)
    except OSError as error:
        return str(error)


def services(folder: Path, environment: Path) -> dict[str, Container]:
    """The services of the trial as docker compose understands its file."""
    words = [TOOLS / "docker-compose", "--file", COMPOSE / "compose.yaml", "config", "--format", "json"]
    trial = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    made = {}
    for name, service in trial["services"].items():
        mounts = [Mount(_folder(folder / f"tmp-{name}", 0o1777), "/tmp")]  # noqa: S108
        for volume in service["volumes"]:
            inside = volume["type"] == "volume"
            source = _folder(folder / volume["source"], 0o700) if inside else Path(volume["source"])
            mounts.append(Mount(source, volume["target"], volume.get("read_only", False)))
        command = (*service["entrypoint"], *(service.get("command") or ()))
        made[name] = Container(name, command, tuple(mounts), folder, environment)
    return made


def test_the_trial_trains_and_goes_on_after_a_restart(environment: Path, tmp_path: Path) -> None:
    made = services(tmp_path, environment)
    server, north = made["server"], made["north"]
    status = ("confide", "server", "status", "--home", "fl", "--json")
    with contextlib.ExitStack() as running:
        running.enter_context(server.started())
        _wait(lambda: _health(8443) == "200", server)
        server.run(*status)
        for name in ("operator", *INSTITUTIONS):
            running.enter_context(made[name].started())
        for name in INSTITUTIONS:
            _wait(lambda name=name: _is_connected(tmp_path / name), made[name])  # type: ignore[misc]
        assert "all are admitted" in made["operator"].log()
        server.run("confide", "server", "run", "run.toml", "--home", "fl", "--follow")
        for name in INSTITUTIONS:
            assert "whole" in made[name].run("confide", "client", "models", "list").stdout
            made[name].run("confide", "client", "ledger", "verify")
    (tmp_path / "north" / "state" / "status.json").unlink()
    with server.started(), north.started():
        _wait(lambda: _is_connected(tmp_path / "north"), north)
        assert '"completed"' in server.run(*status).stdout
        assert north.log().count("client join server:8443") == 1


def pods(folder: Path, environment: Path, end: str, values: dict[str, Any]) -> tuple[Container, Container]:
    """The two containers of the pod that a chart makes: the one that comes first, and the one that stays."""
    objects = render(CHARTS / end, {**NEEDED[end], **values})
    [pod] = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "StatefulSet"]
    for secret in (each for each in objects if each["kind"] == "Secret"):
        for name, text in secret["stringData"].items():
            _folder(folder / "site", 0o750)
            (folder / "site" / name).write_text(text, encoding="utf-8")
    made = []
    for container in [*pod["initContainers"], *pod["containers"]]:
        mounts = []
        for mount in container["volumeMounts"]:
            source = folder / mount["name"]
            if not source.exists():
                _folder(source, 0o1777 if mount["name"] == "tmp" else 0o2770)
            mounts.append(Mount(source / mount.get("subPath", ""), mount["mountPath"], mount.get("readOnly", False)))
        command = tuple(container["command"])
        made.append(Container(container["name"], command, tuple(mounts), folder, environment))
    return made[0], made[1]


def _records(folder: Path) -> None:
    words = ["python3", COMPOSE / "trial.py", "records"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    (_folder(folder, 0o2770) / "reviews.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def server(environment: Path, tmp_path: Path) -> Iterator[Container]:
    """A server of the chart, which institutions reach as `server`."""
    init, main = pods(tmp_path / "server", environment, "server", {"hosts": ["server"]})
    init.run()
    keys = (tmp_path / "server" / "home" / "fl" / "keys" / "ca.pem").read_bytes()
    init.run()
    assert (tmp_path / "server" / "home" / "fl" / "keys" / "ca.pem").read_bytes() == keys, "made only once"
    with main.started():
        _wait(lambda: _health(8443) == "200", main)
        yield main


def test_an_institution_of_the_chart_joins_a_server_of_the_chart(
    server: Container, environment: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _records(tmp_path / "site-volumes" / "data")
    join, client = pods(tmp_path / "site-volumes", environment, "institution", {"site": _SITE})
    home, post = tmp_path / "site-volumes" / "state", tmp_path / "server" / "home"
    waiting = subprocess.Popen(join.words(join.command), env=join.variables())
    request.addfinalizer(waiting.kill)
    [fingerprint] = re.findall(r"fingerprint: (\S+)", join.run("confide", "client", "join", "server:8443").stdout)
    (post / "join.json").write_bytes((home / "join-st-mary.json").read_bytes())
    words = ("confide", "server", "approve", "join.json", "--fingerprint", fingerprint, "--home", "fl")
    [authority] = re.findall(r"authority: (\S+)", server.run(*words).stdout)
    assert waiting.poll() is None, "it waits for the kit"
    (home / "kit.json").write_bytes((post / "kit-st-mary.json").read_bytes())
    join.run("confide", "client", "join", "--kit", "kit.json", "--authority", authority)
    assert waiting.wait(timeout=30) == 0
    ready = _probe(CHARTS / "institution")
    assert client.run(*ready, check=False).returncode != 0, "not ready before it has started"
    with client.started():
        _wait(lambda: _is_connected(home), client)
        client.run(*ready)
        client.run("confide", "client", "doctor")
    _holds_its_rights(client)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (home / "state").glob("*.key")}
    assert modes == dict.fromkeys(("identity.key", "node.key", "secret.key"), "0o600")


def _probe(chart: Path) -> tuple[str, ...]:
    [pod] = [
        each["spec"]["template"]["spec"] for each in render(chart, NEEDED[chart.name]) if each["kind"] == "StatefulSet"
    ]
    return tuple(pod["containers"][0]["readinessProbe"]["exec"]["command"])


def _holds_its_rights(container: Container) -> None:
    """The place in which all this ran is one without rights."""
    assert "CapEff:\t0000000000000000" in container.run("cat", "/proc/self/status").stdout
    assert container.run("id", "-u").stdout.strip() == str(UID)
    for path in ("/x", "/usr/x", "/data/x", "/var/lib/confide/site.toml"):
        done = container.run("sh", "-c", f"echo x >> {path}", check=False)
        assert done.returncode != 0, path


def test_a_server_of_the_chart_shows_the_certificate_of_a_secret(environment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    init, main = pods(folder, environment, "server", {"hosts": ["server"], "tls": {"secret": "mine"}})
    init.run("confide", "server", "init", "other", "--host", "server")
    for name in ("ca.pem", "tls.pem", "tls.key"):
        (folder / "tls" / name).write_bytes((folder / "home" / "other" / "keys" / name).read_bytes())
        (folder / "tls" / name).chmod(0o640)
    for path in (folder / "tls").iterdir():
        shutil.chown(path, 0, UID)
    init.run()
    with main.started():
        _wait(lambda: _health(8443) == "200", main)
        shown = ssl.get_server_certificate(("127.0.0.1", 8443))
    assert shown.strip() == (folder / "home" / "other" / "keys" / "tls.pem").read_text(encoding="utf-8").strip()
