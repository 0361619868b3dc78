"""A run of a server as it ends, or fails."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, InputError, PolicyError
from confide.common.protocol.answers import declined
from confide.server.daemon import delivery
from confide.server.daemon import run as run_module
from confide.server.fleet.public_port import ServerEndsError
from confide.server.home.queue import QueuedRun
from confide.server.results.run_directory import RunDirectory
from confide.simulations.engines.grid import SkippingClock


def _fails(error: BaseException) -> Callable[..., Any]:
    def fail(*rest: Any, **settings: Any) -> Any:
        raise error

    return fail


class Interrupted:
    """A run that was stopped after round 1 of four and went on until it was killed; now it is resumed."""

    def __init__(self, run: RunConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.runs = run, folder / "runs"
        self.directory = RunDirectory(self.runs / "a-run", run)
        self.account = self.directory.path / "privacy.json"
        self.workshop = SimpleNamespace(
            read_public=lambda: None, initial=lambda: {"a": np.zeros(1, np.float32)}, close=lambda: None
        )
        self.link: Any = SimpleNamespace(run=lambda _: contextlib.nullcontext())
        self.directory.record({"event": "offered", "declared_units": {"mary": 500}})
        for number in (1, 2):
            asked = {"what": "update", "round": number, "institutions": ["mary"]}
            self.directory.record({"event": "round_started", **asked})
        self.account.write_text("less", encoding="utf-8")
        self.members, self.going = dict[int, Any](), True
        monkeypatch.setattr(run_module, "Workshop", lambda *_: self.workshop)
        monkeypatch.setattr(run_module, "LinkGrid", lambda _: SimpleNamespace(run=SimpleNamespace(run_id=1)))
        monkeypatch.setattr(run_module, "SystemClock", SkippingClock)

    def resume(self) -> QueuedRun:
        config = SimpleNamespace(server=SimpleNamespace(tracking="none"))
        shared: Any = SimpleNamespace(
            queue=SimpleNamespace(run_of=lambda _: self.run),
            home=SimpleNamespace(runs=self.runs, folder=self.runs.parent, config=config),
            members_of=lambda run: self.members,
            is_over=lambda name: False,
            going=self.going,
        )
        return run_module.carry_out(shared, self.link, QueuedRun("a-run", "ab" * 16))

    def shows(self) -> tuple[str, list[tuple[str, int]]]:
        content = json.loads(self.account.read_bytes())
        return content["status"], [(row["institution"], row["num_steps"]) for row in content["institutions"]]


@pytest.fixture
def interrupted(make_run: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    return Interrupted(make_run(federation={"num_rounds": 4}), tmp_path, monkeypatch)


@pytest.mark.parametrize("error", [ConfideError("no quorum"), PolicyError("too few accepted"), KeyError("a bug")])
def test_a_run_that_ends_in_an_error_has_an_account_of_all_that_was_asked(
    interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What it said after round 1 to have cost must not stay."""

    def serve(state: Any) -> Any:
        assert not interrupted.account.exists(), "a server that is killed now leaves no false claim"
        return _fails(error)

    monkeypatch.setattr(run_module, "make_server_app", serve)
    with pytest.raises(type(error)):
        interrupted.resume()
    assert interrupted.shows() == ("stopped", [("mary", 2)])


def test_a_run_that_its_audit_refutes_begins_no_round(
    make_run: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Interrupted(make_run(release={"audit": True}, federation={"num_rounds": 4}), tmp_path, monkeypatch)
    monkeypatch.setattr(run_module, "require_audit", _fails(PolicyError("refuted")))
    monkeypatch.setattr(run_module, "make_server_app", _fails(AssertionError("a round has begun")))
    with pytest.raises(PolicyError, match="refuted"):
        run.resume()


_FAILS: dict[str, Callable[[Interrupted, pytest.MonkeyPatch, Exception], object]] = {
    "a state.json": lambda run, patch, error: patch.setattr(run_module, "load_last", _fails(error)),
    "the workshop's start": lambda run, patch, error: patch.setattr(run_module, "Workshop", _fails(error)),
    "the public records": lambda run, patch, error: setattr(run.workshop, "read_public", _fails(error)),
    "the base model": lambda run, patch, error: setattr(run.workshop, "initial", _fails(error)),
    "Flower's run": lambda run, patch, error: setattr(run.link, "run", _fails(error)),
    "the last of its results": lambda run, patch, error: patch.setattr(run_module, "_finish", _fails(error)),
}


@pytest.mark.parametrize("place", _FAILS)
def test_a_run_keeps_an_account_wherever_it_fails(
    interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def serve(state: Any) -> Any:
        state.finished = True
        return lambda *rest: None

    monkeypatch.setattr(run_module, "make_server_app", serve)
    _FAILS[place](interrupted, monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        interrupted.resume()
    assert interrupted.shows() == ("stopped", [("mary", 2)])


@pytest.mark.parametrize("what", ["record", "write_privacy"])
def test_a_full_disk_hides_neither_the_account_nor_why_a_run_ended(
    interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    monkeypatch.setattr(run_module, "make_server_app", lambda state: _fails(PolicyError("too few accepted")))
    monkeypatch.setattr(RunDirectory, what, _fails(OSError(28, "No space left on device")))
    with pytest.raises(PolicyError, match="too few accepted"):
        interrupted.resume()
    assert interrupted.account.exists() == (what == "record")
    assert "No space left on device" in caplog.text


def test_a_finished_adapter_that_cannot_answer_leaves_a_report_without_samples(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state: Any = SimpleNamespace(trained=SimpleNamespace(average={}))
    workshop: Any = SimpleNamespace(samples=_fails(ConfideError("samples: out of memory")), earlier=lambda _: None)
    assert run_module._seen(workshop, state) == {"earlier": None}
    assert "the report has no samples: samples: out of memory" in caplog.text
    gone = _fails(InputError("evaluation.earlier = 'old.jsonl': no such file"))
    workshop = SimpleNamespace(samples=lambda _: ["a"], look=lambda _: {}, earlier=gone)
    assert run_module._seen(workshop, state) == {"samples": ["a"], "look": {}}
    assert "the report has no scores on the earlier task: evaluation.earlier = 'old.jsonl'" in caplog.text


def test_a_server_that_ends_leaves_the_report_of_a_run_to_its_next_start(
    interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end kills the child, which must not look like an adapter that cannot answer."""
    for name in ("report_facts", "card_facts"):
        monkeypatch.setattr(run_module, name, lambda *of, **named: {})
    killed = _fails(ConfideError("the process that should answer has ended"))
    workshop: Any = SimpleNamespace(export=lambda *of: None, samples=killed, earlier=killed)
    job, trained = SimpleNamespace(run=None), SimpleNamespace(average={})
    state: Any = SimpleNamespace(job=job, trained=trained, everybody=list)
    shared: Any = SimpleNamespace(going=False)
    with pytest.raises(ServerEndsError):
        run_module._finish(shared, interrupted.directory, state, workshop)
    assert not [event for event in interrupted.directory.events() if event["event"] == "completed"]


@pytest.fixture
def over(interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    """All that is left to do is to give the adapter out."""
    monkeypatch.setattr(run_module, "make_server_app", lambda state: lambda *rest: setattr(state, "finished", True))

    def finish(run: RunConfig, directory: RunDirectory, *rest: object) -> None:
        interrupted.account.write_text("completed", encoding="utf-8")
        directory.record({"event": "completed"})

    monkeypatch.setattr(run_module, "_finish", finish)
    return interrupted


def test_a_run_that_is_over_stays_completed_though_its_adapter_reaches_nobody(
    over: Interrupted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (over.directory.path / "adapter").mkdir()
    monkeypatch.setattr(delivery, "collect", _fails(RuntimeError("nobody there")))
    assert over.resume().status == "completed"
    assert over.account.read_text(encoding="utf-8") == "completed"
    assert "nobody there" in caplog.text
    assert over.directory.events()[-1].items() >= {"event": "given_out", "to": [], "missing": ["mary"]}.items()


class Takers:
    """A grid of who is connected; those who keep an adapter say so, the others decline."""

    def __init__(self, keep: dict[int, bool]) -> None:
        self.keep, self.run, self.sent = keep, SimpleNamespace(run_id=1), list[Message]()

    def get_node_ids(self) -> list[int]:
        return list(self.keep)

    def push_messages(self, messages: list[Message]) -> list[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(len(self.sent))
            self.sent.append(message)
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, ids: list[str]) -> list[Message]:
        asked = [message for message in self.sent if message.metadata.message_id in ids]
        kept = {True: RecordDict(), False: declined()}
        return [Message(kept[self.keep[ask.metadata.dst_node_id]], reply_to=ask) for ask in asked]


def _killed(over: Interrupted, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(run_module, "give_out", _fails(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        over.resume()


def _stopped(over: Interrupted, patch: pytest.MonkeyPatch) -> None:
    """Its event loop ends first, and then nobody answers any more."""
    patch.setattr(delivery, "collect", _fails(RuntimeError("Event loop is closed")))
    over.going = False
    over.resume()
    over.going = True


@pytest.mark.parametrize("ends", [_killed, _stopped])
def test_an_adapter_that_was_not_given_out_is_given_at_the_server_s_next_start(
    over: Interrupted, monkeypatch: pytest.MonkeyPatch, ends: Callable[[Interrupted, pytest.MonkeyPatch], None]
) -> None:
    """The queue still says "running"; nothing is offered or trained again."""
    (over.directory.path / "adapter").mkdir()
    with monkeypatch.context() as patch:
        ends(over, patch)
    assert over.directory.events()[-1]["event"] == "completed"
    grid = Takers({1: True})
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # a Message needs them
    monkeypatch.setattr(run_module, "LinkGrid", lambda _: grid)
    monkeypatch.setattr(run_module, "make_server_app", _fails(AssertionError("offered again")))
    over.members = {1: SimpleNamespace(institution="mary")}
    assert over.resume().status == "completed"
    assert over.directory.events()[-1].items() >= {"event": "given_out", "to": ["mary"], "missing": []}.items()


def test_a_completed_run_gives_its_adapter_again_to_those_who_have_not_got_it(
    interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jude was away at the end, luke's disk was full and still is, anne has left for good; mary has it."""
    record, (adapter, names) = (
        interrupted.directory.record,
        (interrupted.directory.path / "adapter", "mary jude luke anne"),
    )
    record({"event": "offered", "declared_units": dict.fromkeys(names.split(), 500)})
    record({"event": "completed"})
    record({"event": "given_out", "to": ["mary"], "missing": ["anne", "jude", "luke"]})
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"tensors")
    grid = Takers({2: True, 3: False})
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # a Message needs them
    monkeypatch.setattr(run_module, "LinkGrid", lambda _: grid)
    interrupted.members = {node: SimpleNamespace(institution=name) for node, name in enumerate(names.split()[:3], 1)}
    assert interrupted.resume().status == "completed"
    assert [message.metadata.dst_node_id for message in grid.sent] == [2, 3]
    assert interrupted.directory.events()[-1].items() >= {"to": ["jude"], "missing": ["anne", "luke"]}.items()
    assert interrupted.account.read_text(encoding="utf-8") == "less", "its account is not touched"
    grid.sent.clear()
    interrupted.resume()
    assert [message.metadata.dst_node_id for message in grid.sent] == [3]


def test_a_completed_run_stays_completed_whatever_its_folder_holds(
    interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An earlier version told how many had the adapter, and not who: all who took part are given it again."""
    record = interrupted.directory.record
    record({"event": "completed"})
    record({"event": "given_out", "to": 1, "of": 1})
    (interrupted.directory.path / "adapter").mkdir()
    grid = Takers({1: True})
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # a Message needs them
    monkeypatch.setattr(run_module, "LinkGrid", lambda _: grid)
    interrupted.members = {1: SimpleNamespace(institution="mary")}
    assert interrupted.resume().status == "completed"
    assert interrupted.directory.events()[-1].items() >= {"to": ["mary"], "missing": []}.items()
    record({"event": "round_started", "what": "update", "round": 1, "institutions": ["nobody"]})
    assert interrupted.resume().status == "completed"
    assert "its adapter could not be given out" in caplog.text
