"""A real server and real clients as processes on loopback: TLS, keys of their own, folders of their own."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from support.zygote import Forked, Zygote, private

PATIENCE = 180.0  # seconds after which something hangs
POLICY = """
[policy]
max_epsilon = 50.0
max_delta = 1e-3
min_noise_multiplier = 0.1
max_steps = 1000
max_rounds = 1000
max_sampling_probability = 1.0
min_clip_norm = 0.01
max_head_weight = 10.0
min_release_seconds = 1.0
studies = ["small"]
base_models = ["any"]
require_approval = false
"""


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
_PORTS = range(20_000 + 1500 * _WORKER, 21_500 + 1500 * _WORKER)
_given = set[int]()


def free_port() -> int:
    """A port that nobody listens on, and no other test: it is bound only later, and again after a server was killed.

    Below those that an outgoing connection may take meanwhile. Tests that run beside these have other ports.
    """
    while True:
        number = secrets.choice(_PORTS)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", number))
            except OSError:
                continue
        if number not in _given:
            _given.add(number)
            return number


class Deployment:
    """A folder with a server and its institutions; `deployed` ends every process that was started.

    With a zygote everything is forked from it, which is much faster, and can be sabotaged; without ``fork_processes``
    commands alone are.
    """

    def __init__(self, folder: Path, zygote: Zygote | None = None, *, fork_processes: bool = True) -> None:
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes] | Forked]()
        self.scripted = set[str]()  # institutions whose client is played by a test
        self._of_commands, self._of_processes = zygote, zygote if fork_processes else None
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "HOME": str(folder / "home"),
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "*",
        }
        (folder / "home").mkdir()
        self.port, self.admin_port = free_port(), free_port()
        self.confide("server", "init", "srv", "--host", "127.0.0.1", "--port", self.port)
        settings = folder / "srv" / "server.toml"
        text = settings.read_text(encoding="utf-8").replace('# host = "0.0.0.0"', 'host = "127.0.0.1"')
        settings.write_text(text.replace("# admin_port = 8444", f"admin_port = {self.admin_port}"), encoding="utf-8")

    def confide(self, *arguments: object, fails: bool = False) -> str:
        """One command; its standard output, or with ``fails`` its standard error."""
        code, out, err = self._call(*map(str, arguments))
        assert (code != 0) == fails, f"{arguments}: {code}\n{out}\n{err}"
        return err if fails else out

    def refused(self, *arguments: object) -> tuple[str, str]:
        """A command that ends because too few institutions take part (exit code 3); what it wrote to both streams."""
        code, out, err = self._call(*map(str, arguments))
        assert code == 3, f"{arguments}: {code}\n{out}\n{err}"
        return out, err

    def add(self, name: str, records: list[dict[str, Any]], policy: str = POLICY, port: int | None = None) -> Path:
        """An institution that the server has approved; its site.toml. It may reach the server by another port."""
        home = self.folder / name
        home.mkdir()
        (home / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        dataset = f'[dataset]\nid = "{name}-people"\npath = "data.jsonl"\ndeclared_units = 20\n'  # by hand
        site = home / "site.toml"
        compute = "[compute]\ntokens_per_micro_batch = 128\n"  # few shapes to try, of few rows
        site.write_text(f'[institution]\nname = "{name}"\n{dataset}{policy}{compute}', encoding="utf-8")
        shown = self.confide("client", "join", f"127.0.0.1:{port or self.port}", "--site", site)
        [fingerprint] = re.findall(r"fingerprint: (\S+)", shown)
        request, kit = home / f"join-{name}.json", home / f"kit-{name}.json"
        shown = self.confide("server", "approve", request, "--fingerprint", fingerprint, "--home", "srv")
        [authority] = re.findall(r"authority: (\S+)", shown)
        if port:
            address = json.dumps(f"127.0.0.1:{self.port}")
            kit.write_text(kit.read_text(encoding="utf-8").replace(address, json.dumps(f"127.0.0.1:{port}")))
        self.confide("client", "join", "--kit", kit, "--authority", authority, "--site", site)
        return site

    def start_server(self, sabotage: dict[str, Any] | None = None) -> None:
        """Start the server and wait until its admin port answers."""
        self._start("server", sabotage, "server", "start", "--home", "srv")

        def answers() -> bool:
            code = self.processes["server"].poll()
            assert code is None or (sabotage and code == -9), f"the server has ended: {self.log('server')[-2000:]}"
            return code is not None or self.status() is not None

        self.wait(answers, lambda: f"the server does not answer: {self.log('server')[-2000:]}")

    def start_client(self, name: str, sabotage: dict[str, Any] | None = None) -> None:
        """Start an institution's client."""
        self._start(name, sabotage, "client", "start", "--site", f"{name}/site.toml")

    def copy_of_client(self, name: str, copy: str) -> None:
        """Start a copy of an institution, with its keys: a backup that was put back, a machine that was cloned."""
        shutil.copytree(self.folder / name, self.folder / copy)
        self.start_client(copy)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self._end(name, signal.SIGKILL)

    def stop(self, name: str) -> None:
        """SIGTERM: a client says goodbye, so that its next start does not wait for its lease to end."""
        self._end(name, signal.SIGTERM)

    def ends(self, name: str) -> int:
        """Wait until a process has ended by itself; its exit code, negative for a signal."""
        return self.processes.pop(name).wait(timeout=PATIENCE)

    def _end(self, name: str, number: int) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(timeout=PATIENCE)

    def status(self) -> dict[str, Any] | None:
        """What `server status` says, or None while nobody answers."""
        token = (self.folder / "srv" / "admin.token").read_text(encoding="utf-8")
        try:
            with httpx.Client(trust_env=False) as web:
                url = f"http://127.0.0.1:{self.admin_port}/status"
                status: dict[str, Any] = web.get(url, headers={"authorization": f"Bearer {token}"}).json()
        except httpx.HTTPError:
            return None
        return status

    def propose(self, run_file: Path) -> str:
        """Queue a run; its name."""
        return self.confide("server", "run", run_file, "--home", "srv").split(":")[0]

    def events(self, name: str) -> list[dict[str, Any]]:
        """What a run has told so far."""
        path = self.folder / "srv" / "runs" / name / "events.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines]

    def reaches(self, name: str, **wanted: Any) -> dict[str, Any]:
        """Wait for an event that holds these values."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [event for event in self.events(name) if wanted.items() <= event.items()]
            return bool(found)

        self.wait(look, lambda: f"{name} does not reach {wanted}: {self.events(name)[-3:]}")
        return found[-1]

    def ended(self, name: str) -> dict[str, Any]:
        """Wait for the end of a run; its status and reason."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            runs = (self.status() or {"runs": []})["runs"]
            found[:] = [run for run in runs if run["name"] == name and run["status"] not in ("queued", "running")]
            return bool(found)

        self.wait(look, lambda: f"{name} does not end: {self.events(name)[-3:]}")
        return found[0]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of an institution's ledger; none where nothing was ever agreed to."""
        code, out, err = self._call("client", "ledger", "export", "--site", f"{name}/site.toml")
        assert code == 0 or "has no ledger row yet" in err, err
        lines = out.splitlines()
        return [json.loads(line)["body"] for line in lines[1:]]

    def log(self, name: str) -> str:
        """What a process wrote."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def wait(self, condition: Any, complaint: str | Callable[[], str]) -> None:
        """Until a condition holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, complaint if isinstance(complaint, str) else complaint()
            time.sleep(0.2)

    def _call(self, *arguments: str) -> tuple[int, str, str]:
        """A command to its end: exit code, standard output, standard error."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            code = self._begin(arguments, (out, err), self._of_commands).wait(timeout=PATIENCE)
            return code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")

    def _start(self, name: str, sabotage: dict[str, Any] | None, *arguments: str) -> None:
        log = self.folder / f"{name}.log"
        self.processes[name] = self._begin(arguments, (log, log), self._of_processes, sabotage)

    def _begin(
        self,
        arguments: tuple[str, ...],
        told: tuple[Path, Path],
        zygote: Zygote | None,
        sabotage: dict[str, Any] | None = None,
    ) -> "subprocess.Popen[bytes] | Forked":
        if zygote:
            settings: dict[str, Any] = {"cwd": str(self.folder), "out": str(told[0]), "err": str(told[1])}
            settings["environment"] = private(self.environment)
            return zygote.fork(arguments=arguments, sabotage=sabotage or {}, **settings)
        assert not sabotage, "only what a zygote has forked can be sabotaged"
        command = [sys.executable, "-m", "confide.common.cli.main", *arguments]
        with told[0].open("ab") as out, told[1].open("ab") as err:
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=out, stderr=err)


@contextmanager
def deployed(folder: Path, zygote: Zygote | None = None, *, fork_processes: bool = True) -> Iterator[Deployment]:
    """A deployment whose processes end with the block."""
    deployment = Deployment(folder, zygote, fork_processes=fork_processes)
    try:
        yield deployment
    finally:
        for process in deployment.processes.values():
            process.kill()
            process.wait()
