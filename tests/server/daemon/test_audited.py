"""The audit before a run is offered: once, refused with the numbers, and told on card and report."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cards import make_card

from confide.common.config.run import RunConfig, lock
from confide.common.errors import ConfideError, PolicyError
from confide.common.export.card import render_card
from confide.server.daemon import audited
from confide.server.results.report_facts import last_audit
from confide.server.results.run_directory import RunDirectory

MakeRun = Callable[..., RunConfig]
NUMBERS = {"observer": "the server", "stated_epsilon": 3.0, "epsilon_at_least": 2.1, "holds": True}


@pytest.fixture
def directory(make_run: MakeRun, tmp_path: Path) -> RunDirectory:
    run = lock(make_run(release={"audit": True}, federation={"num_rounds": 2}), "0" * 64)
    return RunDirectory(tmp_path / "a-run", run)


def _found(**changes: Any) -> Callable[..., Any]:
    return lambda *_: {"confidence": 0.999, "canaries": 4000, "observers": [NUMBERS | changes]}


def test_a_run_is_audited_once(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audited, "_carry_out", _found())
    audited.require_audit(directory, lambda: False)
    monkeypatch.setattr(audited, "_carry_out", lambda *_: pytest.fail("again"))
    audited.require_audit(directory, lambda: False)
    assert last_audit(directory) == _found()()


def test_a_refuted_run_is_refused_each_time(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audited, "_carry_out", _found(epsilon_at_least=4.256, holds=False))
    for _ in range(2):
        with pytest.raises(PolicyError, match=r"at least 4\.26, the run states 3\.00"):
            audited.require_audit(directory, lambda: False)


def test_the_gate_s_own_process_audits_a_locked_run(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    small = "from confide.simulations.audit import gate, verdicts; E = verdicts.Effort; "
    small += "gate.Effort = lambda confidence: E(200, 10, confidence); gate.main()"
    real = subprocess.Popen

    def smaller(command: list[str], **settings: Any) -> Any:
        assert command[1:4] == ["-P", "-m", "confide.simulations.audit.gate"]
        return real([command[0], "-P", "-c", small, command[4]], **settings)

    monkeypatch.setattr(subprocess, "Popen", smaller)
    audited.require_audit(directory, lambda: False)
    found = last_audit(directory)
    assert found is not None
    assert (found["canaries"], found["confidence"]) == (200, 0.999)
    [one] = found["observers"]
    assert one["holds"]
    assert one["epsilon_at_least"] <= one["stated_epsilon"]


def test_an_audit_that_fails_or_is_stopped_says_so(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audited, "_GATE", "confide.nowhere")
    with pytest.raises(ConfideError, match=r"the audit failed: .*the run was not offered\. `confide audit RUN\.toml`"):
        audited.require_audit(directory, lambda: False)
    monkeypatch.setattr(audited, "_GATE", "http.server")  # slower to begin than the first look
    monkeypatch.setattr(audited, "_LOOK_SECONDS", 0.01)
    with pytest.raises(ConfideError, match="stopped before"):
        audited.require_audit(directory, lambda: True)
    assert last_audit(directory) is None


def test_an_audit_that_takes_too_long_ends_and_nothing_of_it_goes_on(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[subprocess.Popen[bytes]]()
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        assert options["start_new_session"], "Ctrl-C at the server's terminal would look like a fault of the audit"
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(audited.subprocess, "Popen", start)
    monkeypatch.setattr(audited, "_GATE", "http.server")  # slower to begin than the first look
    monkeypatch.setattr(audited, "_LOOK_SECONDS", 0.01)
    with pytest.raises(OSError, match="registry"):
        audited._carry_out(directory, _registry_gone)
    monkeypatch.setattr(audited, "_MOST_SECONDS", 0.0)
    with pytest.raises(ConfideError, match="had not ended after 0 minutes"):
        audited._carry_out(directory, lambda: False)
    assert [process.poll() is not None for process in started] == [True, True]
    assert started[0].args[1] == "-P", "the folder in which the server was started is no place for code"  # type: ignore[index]


def _registry_gone() -> bool:
    raise OSError("registry")


def test_a_run_without_a_gate_keeps_its_text_and_one_with_it_says_so(make_run: MakeRun) -> None:
    assert "release" not in json.loads(make_run().canonical_json())
    asked = make_run(release={"audit": True})
    assert json.loads(asked.canonical_json())["release"] == {"audit": True}
    assert RunConfig.model_validate_json(asked.canonical_json()).sha256() == asked.sha256()


def test_the_card_tells_of_the_audit(make_run: MakeRun) -> None:
    run = lock(make_run(), "0" * 64)
    assert "| audit |" not in render_card(run, make_card(run))
    assert "Epsilon at least 2.10, stated 3.00, against the server." in render_card(
        run, make_card(run, audit=_found()())
    )
