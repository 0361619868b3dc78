"""A real server and real clients as processes on loopback: TLS, keys of their own, folders of their own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

PATIENCE = 120.0  # seconds after which something hangs
POLICY = """
[policy]
max_epsilon = 50.0
max_delta = 1e-3
min_noise_multiplier = 0.1
max_steps = 1000
max_rounds = 1000
max_sampling_probability = 1.0
studies = ["small"]
base_models = ["any"]
require_approval = false
"""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Deployment:
    """A folder with a server and its institutions; `running` ends every process that was started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes]]()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "*",
        }
        self.port, self.admin_port = free_port(), free_port()
        self.confide("server", "init", "srv", "--host", "127.0.0.1", "--port", self.port)
        settings = folder / "srv" / "server.toml"
        text = settings.read_text(encoding="utf-8").replace('# host = "0.0.0.0"', 'host = "127.0.0.1"')
        settings.write_text(text.replace("# admin_port = 8444", f"admin_port = {self.admin_port}"), encoding="utf-8")

    def confide(self, *arguments: object, fails: bool = False) -> str:
        """One command; its standard output, or with ``fails`` its standard error."""
        done = subprocess.run(
            [sys.executable, "-m", "confide.common.main", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr if fails else done.stdout

    def add(self, name: str, records: list[dict[str, Any]], policy: str = POLICY) -> Path:
        """An institution that the server has approved; its site.toml."""
        home = self.folder / name
        home.mkdir()
        (home / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        dataset = f'[dataset]\nid = "{name}-people"\npath = "data.jsonl"\ndeclared_units = {len(records)}\n'
        site = home / "site.toml"
        site.write_text(f'[institution]\nname = "{name}"\n{dataset}{policy}', encoding="utf-8")
        shown = self.confide("client", "join", f"127.0.0.1:{self.port}", "--site", site)
        [fingerprint] = re.findall(r"fingerprint: (\S+)", shown)
        request, kit = home / f"join-{name}.json", home / f"kit-{name}.json"
        self.confide("server", "approve", request, "--fingerprint", fingerprint, "--home", "srv")
        self.confide("client", "join", "--kit", kit, "--site", site)
        return site

    def start_server(self) -> None:
        """Start the server and wait until its admin port answers."""
        self._start("server", "server", "start", "--home", "srv")
        self.wait(lambda: self.status() is not None, "the server does not answer")

    def start_client(self, name: str) -> None:
        """Start an institution's client."""
        self._start(name, "client", "start", "--site", f"{name}/site.toml")

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

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

        self.wait(look, f"{name} does not reach {wanted}: {self.events(name)[-3:]}")
        return found[-1]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of an institution's ledger."""
        lines = self.confide("client", "ledger", "export", "--site", f"{name}/site.toml").splitlines()
        return [json.loads(line)["body"] for line in lines[1:]]

    def log(self, name: str) -> str:
        """What a process wrote."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def wait(self, condition: Any, complaint: str) -> None:
        """Until a condition holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, complaint
            time.sleep(0.2)

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "confide.common.main", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )


@contextmanager
def deployed(folder: Path) -> Iterator[Deployment]:
    """A deployment whose processes end with the block."""
    deployment = Deployment(folder)
    try:
        yield deployment
    finally:
        for process in deployment.processes.values():
            process.kill()
            process.wait()
