"""A process that has imported everything and forks a `confide` command in an instant: torch takes seconds to import.

What it forks is a process of its own like any other: it can be killed, has its folder, its logs and its sockets.
`support.sabotage` is told what shall go wrong in it. Run as a program, this file is that process.
"""

import importlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PATIENCE = 240.0
_HEAVY = [
    *("dp_accounting.pld", "dp_accounting.rdp", "matplotlib.figure", "transformers.models.bert.modeling_bert"),
    *(f"confide.client.{name}" for name in ("answers.app", "commands.cli", "service.process")),
    *(f"confide.common.{name}" for name in ("cli.adapters", "model.evaluation", "export.write", "verify.command")),
    *(f"confide.server.{name}" for name in ("commands.cli", "daemon.process", "daemon.torch_child", "results.report")),
]


class Forked:
    """A process of a zygote's, from the test's side; as much of `subprocess.Popen` as is needed."""

    def __init__(self, talk: socket.socket) -> None:
        self._talk = talk.makefile("rb")
        talk.settimeout(_PATIENCE)
        self.pid = int(self._talk.readline())
        self._socket, self.returncode = talk, None

    def send_signal(self, number: int) -> None:
        """A signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        self._read(0.0)
        return self.returncode

    def wait(self, timeout: float = _PATIENCE) -> int:
        """The exit code, negative for a signal."""
        self._read(timeout)
        assert self.returncode is not None, f"process {self.pid} does not end"
        return self.returncode

    def _read(self, timeout: float) -> None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._socket, selectors.EVENT_READ)
                if selector.select(timeout):
                    self.returncode = int(self._talk.readline() or -9)  # nothing: the zygote itself has ended
                    self._talk.close()
                    self._socket.close()


class Zygote:
    """The test's handle on it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="confide-zygote-")
        self.address = str(Path(self._folder.name) / "socket")
        self._process = subprocess.Popen([sys.executable, __file__, self.address], stdin=subprocess.PIPE)
        end = time.monotonic() + _PATIENCE
        while not Path(self.address).exists():
            assert self._process.poll() is None, "the zygote has ended"
            assert time.monotonic() < end, "the zygote does not start"
            time.sleep(0.1)

    def fork(self, **order: Any) -> Forked:
        """Fork a command; see `_obey` for what an order holds."""
        return ask_for(self.address, order, [])

    def close(self) -> None:
        """End it, and with it whatever it has forked."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=_PATIENCE)
        self._folder.cleanup()


def private(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process must not have from whoever runs the tests: a home, and ways around the network."""
    return {name: value for name, value in environment.items() if name == "HOME" or name.lower().endswith("_proxy")}


def ask_for(address: str, order: dict[str, Any], descriptors: list[int]) -> Forked:
    """Ask a zygote for a process."""
    talk = socket.socket(socket.AF_UNIX)
    talk.connect(address)
    socket.send_fds(talk, [json.dumps(order).encode() + b"\n"], descriptors)
    return Forked(talk)


# What runs in the zygote


def _preload() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    from confide.common.flower import prepare

    prepare()
    for name in _HEAVY:
        importlib.import_module(name)
    _warm_up()
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not fork"


def _warm_up() -> None:
    """Load a model and price a plan once: libraries import half of themselves on their first use."""
    import transformers
    from support.faults import run_file
    from support.speed import CPU
    from support.tiny_bert import save_tiny_bert

    from confide.client.config import PolicySection
    from confide.client.privacy.policy import cap_of
    from confide.common.config.run import load_run, lock, make_plan
    from confide.common.model.adapter import reset
    from confide.common.model.base_models import hash_model
    from confide.common.model.warm_model import forget_models, warm_model
    from confide.common.privacy.accounting import epsilon
    from confide.common.privacy.filter import choose_order
    from confide.common.privacy.plan import PrivacyPlan

    transformers.logging.disable_progress_bar()  # it has a thread
    with tempfile.TemporaryDirectory() as folder:
        base = save_tiny_bert(Path(folder))
        run = lock(load_run(run_file(Path(folder), base)), hash_model(base))
        reset(warm_model(run, CPU).module, run.study.seed)
        forget_models()
        plan = make_plan(run, 20)
        assert isinstance(plan, PrivacyPlan)
        epsilon(plan)
        choose_order(plan, cap_of(PolicySection(max_epsilon=50.0, max_delta=1e-3)))


def _serve(address: str) -> None:
    _preload()
    selector, listening = selectors.DefaultSelector(), socket.socket(socket.AF_UNIX)
    partial = f"{address}.tmp"
    listening.bind(partial)
    listening.listen(64)
    os.rename(partial, address)  # so that whoever sees it can connect
    selector.register(listening, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    children: dict[int, socket.socket] = {}
    while True:
        ready = [key.fileobj for key, _ in selector.select(0.02 if children else 1.0)]
        if sys.stdin in ready:
            break
        if listening in ready:
            talk = listening.accept()[0]
            content, descriptors, *_ = socket.recv_fds(talk, 2**16, 4)
            if pid := os.fork():
                children[pid] = talk
                talk.sendall(b"%d\n" % pid)
                for descriptor in descriptors:
                    os.close(descriptor)
            else:
                selector.close()
                for inherited in (listening, talk, *children.values()):
                    inherited.close()
                _become(json.loads(content), descriptors, address)
        _reap(children)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _reap(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with children.pop(pid) as talk:
            try:
                talk.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            except OSError:  # nobody waits for it any more
                continue


def _become(order: dict[str, Any], descriptors: list[int], address: str) -> None:
    code = 1
    try:
        code = _obey(order, descriptors, address)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - what Python would do
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _obey(order: dict[str, Any], descriptors: list[int], address: str) -> int:
    """In ``cwd``, with `private` variables from ``environment``: a server's child with the settings in ``workshop``.

    Or a command: ``arguments``, files ``out`` and ``err`` to append to, ``sabotage``.
    """
    os.chdir(order["cwd"])
    for name in private(os.environ):
        del os.environ[name]
    os.environ.update(order["environment"])
    logging.getLogger().handlers.clear()  # what an imported library has set up
    if order.get("workshop"):
        from confide.server.daemon.torch_child import _work

        _work(Connection(descriptors[0]), *order["workshop"])
        return 0
    os.setsid()
    for stream, path in ((1, order["out"]), (2, order["err"])):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    from support import sabotage

    sabotage.prepare(address, order.get("sabotage", {}))
    sys.argv = ["confide", *order["arguments"]]
    from confide.common.cli.main import main

    main()
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    _serve(sys.argv[1])
