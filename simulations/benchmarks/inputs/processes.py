"""A server and clients as processes of the installed `confide` command, in one private folder on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

_COMMAND = (sys.executable, "-m", "confide.common.cli.main")
_GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_HANGS = 300.0  # seconds after which something hangs


class Processes:
    """Commands that run to their end, and processes that end with the block, however it ends.

    Everything that they write lies in ``folder``, which also holds their home and their temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, dict[str, subprocess.Popen[bytes]]()
        for name in ("home", "tmp"):
            (folder / name).mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        private = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
        self.environment = {**kept, **private, "HF_HUB_OFFLINE": "1"}

    def __enter__(self) -> "Processes":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the block ends then, too
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self.started.values():
            process.terminate()
        end = time.monotonic() + _GRACE
        for process in self.started.values():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def confide(self, *arguments: object) -> str:
        """Run one command and return its standard output; end the program if the command fails."""
        command = [*_COMMAND, *map(str, arguments)]
        done = subprocess.run(  # noqa: S603 - our own command
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            shown = " ".join(command[3:])
            sys.exit(f"confide {shown}: exit code {done.returncode}\n{done.stdout}{done.stderr}{self.logs()}")
        return done.stdout

    def start(self, name: str, *arguments: object) -> None:
        """Start a process; its output is its log."""
        command = [*_COMMAND, *map(str, arguments)]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.started[name] = subprocess.Popen(  # noqa: S603 - our own command
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    def log(self, name: str) -> str:
        """Return the output of a process so far."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def logs(self) -> str:
        """Return the end of every log, for a person who looks for a fault."""
        return "".join(f"\n--- {name}\n" + "\n".join(self.log(name).splitlines()[-15:]) for name in self.started)

    def serve(self) -> int:
        """Make a server's folder ``srv``, start the server and return its public port."""
        port, admin = free_port(), free_port()
        self.confide("server", "init", "srv", "--host", "127.0.0.1", "--port", port)
        settings = self.folder / "srv" / "server.toml"
        text = settings.read_text(encoding="utf-8").replace('# host = "0.0.0.0"', 'host = "127.0.0.1"')
        settings.write_text(text.replace("# admin_port = 8444", f"admin_port = {admin}"), encoding="utf-8")
        self.start("server", "server", "start", "--home", "srv")
        self.wait(lambda: '"listening"' in self.log("server"), "the server does not listen")
        return port

    def events(self, run: str) -> list[dict[str, Any]]:
        """Return the events of a server's run so far, without a line that is still being written."""
        path = self.folder / "srv" / "runs" / run / "events.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        return [json.loads(line) for line in lines]

    def wait(self, condition: Callable[[], bool], complaint: str, seconds: float = _HANGS) -> None:
        """Wait until a condition holds; end the program if that takes too long, or if a process has ended."""
        end = time.monotonic() + seconds
        while not condition():
            ended = [name for name, process in self.started.items() if process.poll() is not None]
            if ended or time.monotonic() > end:
                sys.exit(f"{complaint}; ended: {ended or 'nothing'}{self.logs()}")
            time.sleep(0.2)


def free_port() -> int:
    """Return a port on which no process listens now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def machine() -> str:
    """Return cores and load of this machine, for readers of figures that were measured on it."""
    return f"{os.cpu_count()} cores, load {' '.join(f'{load:.1f}' for load in os.getloadavg())} (1, 5, 15 minutes)"
