"""Release ticks: the time of an answer tells a whole number of ticks, whatever it is and however long it took."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from support.installations import Asking, kinds, write_site

from confide.client.service import process as service_module
from confide.client.service.link import Answer
from confide.client.service.release_ticks import at_ticks, seconds_to_tick, tick_of
from confide.client.site.installation import Site, open_site
from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig, load_run, lock
from confide.common.config.sections import FederationSection
from confide.common.errors import InputError
from confide.common.model.base_models import hash_model
from confide.common.protocol.asks import Finished

MakeRun = Callable[..., RunConfig]
TICK = 10.0


@dataclass
class _Stop:
    """A stop that is never asked for, on a clock that its waits move; `work` is the time of the next answer."""

    time: float = 1000.0
    work: float = 0.0
    waits: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.time += seconds
        return False

    def now(self) -> float:
        return self.time


class Slow(Asking):
    """Asks a client whose answers take time and leave at ticks; `left_after`: seconds from each ask to its answer.

    `least`: the institution's own least tick.
    """

    def __init__(self, run: RunConfig, site_of: Callable[[], Site], client: ClientProcess | None = None) -> None:
        self.stop, self.left_after, self.least = _Stop(), list[float](), 1.0
        super().__init__(run, site_of, client)

    def restart(self, site_of: Callable[[], Site], client: ClientProcess | None = None) -> None:
        super().restart(site_of, client)
        app = self._grid._app

        def work(message: Message, context: Context) -> Message:
            reply = app(message=message, context=context)
            self.stop.time += self.stop.work
            return reply

        held = at_ticks(work, self.stop, lambda: self.least, self.stop.now)  # type: ignore[arg-type]
        self._grid._app = held  # type: ignore[assignment]

    def after(self, work: float, ask: Callable[[], RecordDict]) -> tuple[str, float]:
        """What is answered, and when it leaves, where the answer takes ``work`` seconds to make."""
        self.stop.work, before = work, self.stop.time
        content = ask()
        return kinds(content)[0], self.stop.time - before


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    run = make_run(
        local={"sampling_probability": 1.0, "nominal_units": 20},
        federation={"num_rounds": 2, "release_seconds": TICK},
        evaluation={"validation_every": 1},
    )
    return lock(run, hash_model(base_folder))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return open_site(write_site(tmp_path, policy={"share_metrics": "private"}))


def test_every_answer_leaves_at_a_tick_whatever_it_is_and_however_long_it_took(run: RunConfig, site: Site) -> None:
    """An update, counts, the same bytes again, and refusals at once or late: a reader of the clock cannot tell."""
    slow = Slow(run, lambda: site)
    for work, left in ((0.0, TICK), (0.3, TICK), (9.9, TICK), (10.1, 2 * TICK), (25.0, 3 * TICK)):
        slow.lineage = f"{int(10 * work):032x}"
        for kind, ask in {
            "accepted": slow.offer,
            "update": lambda: slow.update(1, lineage="0" * 32),  # sealed after the first time
            "declined": lambda: slow.update(7),
        }.items():
            answered, after = slow.after(work, ask)
            assert (answered, after) == (kind, pytest.approx(left)), work
    assert slow.after(0.0, slow.counts) == ("update", pytest.approx(TICK))
    assert slow.after(0.0, lambda: slow.counts(7)) == ("declined", pytest.approx(TICK))


def test_two_answers_that_took_different_times_within_a_tick_leave_alike(run: RunConfig, site: Site) -> None:
    slow = Slow(run, lambda: site)
    times = {slow.after(work, slow.update)[1] for work in (0.125, 1.0, 4.5, 9.75)}
    assert times == {TICK}


@given(elapsed=st.floats(0, 1e6), tick=st.floats(1, 86_400))
def test_an_answer_leaves_after_a_whole_number_of_ticks_and_within_one(elapsed: float, tick: float) -> None:
    wait = seconds_to_tick(elapsed, tick)
    ticks = (elapsed + wait) / tick
    assert ticks == pytest.approx(round(ticks), abs=1e-6)
    assert round(ticks) >= 1
    assert 0 <= wait <= tick


def test_what_was_sealed_is_on_the_disk_before_it_waits(run: RunConfig, site: Site) -> None:
    """Else a client that is stopped while it waits would have trained for nothing."""
    seen = []

    class Looking(_Stop):
        def wait(self, seconds: float) -> bool:
            seen.append([row["kind"] for row, _ in site.ledger.rows()])
            return super().wait(seconds)

    slow = Slow(run, lambda: site)
    slow.stop = Looking()
    slow.restart(lambda: site)
    slow.update()
    assert seen[0][-2:] == ["reserve", "seal"]
    assert len(site.outbox.names()) == 1


def test_an_ask_that_is_none_is_held_to_the_least_tick(run: RunConfig) -> None:
    """Its refusal comes at once, and would tell that it was one."""
    least = FederationSection().release_seconds
    hostile: list[RecordDict] = [
        RecordDict(),
        RecordDict({"ask": ConfigRecord()}),
        RecordDict({"ask": ConfigRecord({"run_json": b"\xff"})}),
        RecordDict({"ask": ConfigRecord({"run_json": "[" * 100_000})}),
        RecordDict({"ask": ConfigRecord({"run_json": "\ud800"})}),
        RecordDict({"ask": ConfigRecord({"run_json": run.canonical_json().replace("10.0", "0.001")})}),
        RecordDict({"ask": ConfigRecord({"run_json": run.canonical_json().replace("10.0", "1e300")})}),
        Finished("test", "ab" * 16, "0" * 64, "", {}).content(),
    ]
    assert [tick_of(content, least) for content in hostile] == [least] * len(hostile)
    assert [tick_of(content, 60.0) for content in hostile] == [60.0] * len(hostile)
    ask = RecordDict({"ask": ConfigRecord({"run_json": run.canonical_json()})})
    assert [tick_of(ask, own) for own in (least, TICK, 60.0)] == [TICK, TICK, 60.0]


def test_no_ask_gets_an_answer_at_shorter_ticks_than_the_institution_s(run: RunConfig, tmp_path: Path) -> None:
    """A server would ask with a run that is refused, or with none, and read the time of the refusal in seconds."""
    site = open_site(write_site(tmp_path, policy={"min_release_seconds": 60.0}))
    slow = Slow(run, lambda: site)
    slow.least = 60.0
    for work, left in ((0.0, 60.0), (59.0, 60.0), (61.0, 120.0)):
        for ask in (slow.offer, slow.update, lambda: slow.send(RecordDict(), "train")):
            assert slow.after(work, ask) == ("declined", pytest.approx(left)), work


def test_a_stop_ends_a_wait_at_once(run: RunConfig) -> None:
    stop, began = threading.Event(), threading.Event()

    def work(message: Any, context: Any) -> Any:
        began.set()
        return "reply"

    ask = RecordDict({"ask": ConfigRecord({"run_json": run.canonical_json()})})
    held = at_ticks(work, stop, lambda: 1.0)
    thread = threading.Thread(target=held, args=(_content(ask), None), daemon=True)
    thread.start()
    assert began.wait(5)
    thread.join(timeout=0.1)
    assert thread.is_alive(), "it waits for the tick"
    stop.set()
    thread.join(timeout=5)
    assert not thread.is_alive(), "ten seconds early"


def _content(content: RecordDict) -> Any:
    class Bare:
        pass

    bare: Any = Bare()
    bare.content, bare.has_content = content, lambda: True
    return bare


@pytest.mark.parametrize(("own", "tick"), [(1.0, TICK), (50.0, 50.0), (None, TICK)])
def test_the_client_process_answers_at_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: RunConfig, own: float | None, tick: float
) -> None:
    """What `client start` gives to its link waits on the very event that ends the process."""
    given: dict[str, Any] = {}

    def link(address: str, ca: bytes, key: object, answer: Answer, stop: threading.Event) -> Any:
        given.update(answer=answer, stop=stop)
        return _Link()

    monkeypatch.setattr(service_module, "kit_of", lambda site: _Kit())
    monkeypatch.setattr(service_module, "node_key", lambda state: None)
    monkeypatch.setattr(service_module, "Link", link)
    monkeypatch.setattr(service_module.signal, "signal", lambda *rest: None)
    monkeypatch.setattr(service_module._Answers, "__call__", lambda *rest: "reply")
    path = write_site(tmp_path, policy={"min_release_seconds": own})
    open_site(path)
    service_module.serve(path)
    ask = _content(RecordDict({"ask": ConfigRecord({"run_json": run.canonical_json()})}))
    given["stop"].wait = lambda seconds: given.update(waited=seconds)
    assert given["answer"](ask, None) == "reply"
    assert given["waited"] == pytest.approx(tick, abs=5)


class _Kit:
    address, ca = "127.0.0.1:1", "none"


class _Link:
    is_paused = None

    def run(self) -> None:
        """Nothing to do."""


def test_a_tick_below_a_second_or_above_the_deadline_is_refused(tmp_path: Path, run: RunConfig) -> None:
    """A server could make ticks so short that they hide nothing; the run would be approved without anybody noticing."""
    path = tmp_path / "run.toml"
    path.write_text('[study]\nname = "test"\n[task]\nlabels = ["negative", "positive"]\n', encoding="utf-8")
    assert load_run(path).federation.release_seconds == 1.0
    for tick, message in ((0.999, "must be at least 1"), (0, "must be at least 1"), (1e6, "must be at most 86400")):
        with pytest.raises(InputError, match=message):
            load_run(path, [f"federation.release_seconds={tick}"])
    with pytest.raises(InputError, match="must be below deadline_seconds = 60"):
        load_run(path, ["federation.release_seconds=60", "federation.deadline_seconds=60.0"])
