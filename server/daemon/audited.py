"""The audit before a run is offered (`[release] audit`): an attack that proves more than the run states ends it."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confide.common.errors import ConfideError, PolicyError
from confide.server.results.report_facts import last_audit
from confide.server.results.run_directory import RunDirectory

_GATE = "confide.simulations.audit.gate"  # by name: the server imports neither torch nor a client's code
_LOOK_SECONDS = 0.5
_MOST_SECONDS = 3600.0
_TOLD = ("observer", "stated_epsilon", "epsilon_at_least", "holds")


def require_audit(directory: RunDirectory, is_over: Callable[[], bool]) -> None:
    """Audit the run of a directory once, and record the result in its events.

    Args:
        directory: of the locked run.
        is_over: true once an operator stops the run; the audit then ends too, without a result.

    Raises:
        PolicyError: an attack proves a larger epsilon than the run states.
        ConfideError: the audit failed, or was stopped.
    """
    found = last_audit(directory)
    if found is None:
        found = _carry_out(directory, is_over)
        directory.record({"event": "audited", **found})
    refuted = [one for one in found["observers"] if not one["holds"]]
    if refuted:
        worst = max(refuted, key=lambda one: float(one["epsilon_at_least"]) / one["stated_epsilon"])
        raise PolicyError(
            f"release.audit: an attack by {worst['observer']} proves an epsilon of at least "
            f"{worst['epsilon_at_least']:.2f}, the run states {worst['stated_epsilon']:.2f}; this "
            "installation is faulty: update Confide, and report it"
        )


def _wait(process: subprocess.Popen[bytes], is_over: Callable[[], bool]) -> None:
    """Wait for an audit's end; `ConfideError` once an operator stops the run, or after the longest time."""
    until = time.monotonic() + _MOST_SECONDS
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
        if process.poll() is not None:
            return
        if is_over():
            raise ConfideError("release.audit: stopped before it had ended")
        if time.monotonic() > until:
            raise ConfideError(
                f"release.audit: the audit had not ended after {_MOST_SECONDS / 60:g} minutes; propose a run of fewer "
                "members or steps, or set release.audit = false"
            )


def _carry_out(directory: RunDirectory, is_over: Callable[[], bool]) -> dict[str, Any]:
    # -P: nothing that lies in the folder in which the server was started is imported.
    command = [sys.executable, "-P", "-m", _GATE, str(directory.path / "run.lock.json")]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl-C reaches every process of a terminal's, and would look like a fault of the audit.
        process = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True)  # noqa: S603 - ours
        try:
            _wait(process, is_over)
        finally:
            process.kill()  # of one that has ended: nothing
            process.wait()
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise ConfideError(
                f"release.audit: the audit failed: {last[0] if last else process.returncode}; the run was not offered. "
                "`confide audit RUN.toml` on this machine shows the fault; mend it and start the run again, or set "
                "release.audit = false"
            )
        found = json.loads(output.read())
    observers = [{name: one[name] for name in _TOLD} for one in found["observers"]]
    return {"confidence": found["confidence"], "canaries": found["canaries"], "observers": observers}
