"""The facts of the server's page."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.server_pages import add_institutions

from confide.common.config.run import RunConfig
from confide.server.daemon.server_state import ServerState
from confide.server.home.home import init_home
from confide.server.home.queue import Queue
from confide.server.page.facts import Observer, ShownRun
from confide.server.page.following import Followed
from confide.server.results.run_directory import RunDirectory

MakeRun = Callable[..., RunConfig]


@pytest.mark.parametrize(("score", "ends"), [(-0.25, ("-0.250", "0.500")), (0.25, ("0.000", "0.500"))])
def test_a_correlation_below_0_is_drawn_inside_the_frame(
    make_run: MakeRun, score: float, ends: tuple[str, str]
) -> None:
    rounds = {
        number: {"round": number, "score": {"metric": "pearson", "mean": mean, "per_institution": {}}}
        for number, mean in ((1, score), (2, 0.5))
    }
    followed: Any = SimpleNamespace(rounds=rounds)
    queued: Any = None
    shown = ShownRun(queued, make_run(), followed, None)
    assert shown.ends_of_scores() == ends
    assert f"L{100 * 2 / make_run().federation.num_rounds:.2f} 0.00" in shown.picture_of_scores()


def test_the_adapter_is_at_all_that_ever_kept_it() -> None:
    """It is given out again to those alone that lack it."""
    followed, told = Followed(), list[Any]()
    for names in (["b", "a"], ["c"], [], 3):  # a number: an earlier version counted them
        followed.take({"event": "given_out", "to": names, "missing": []})
        told.append(followed.given_out)
    assert told == [["a", "b"], ["a", "b", "c"], ["a", "b", "c"], ["a", "b", "c"]]


def test_outcomes_of_a_round_that_is_repeated_are_forgotten_as_by_the_status(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    directory, followed = RunDirectory(tmp_path / "a-run", run), Followed()
    started = {"event": "round_started", "what": "update", "institutions": ["a", "b"]}
    accepted = [{"event": "accepted", "round": 1, "institution": name} for name in "ab"]
    events: list[Any] = [{"event": "offered", "declared_units": {"a": 20, "b": 20}, "others": {}}]
    events += [{**started, "round": 1}, *accepted, {**started, "round": 1}, accepted[0]]
    for event in events:
        directory.record(event)
        followed.take(event)
    by_status = {name: item.accepted for name, item in directory.institutions(run).items()}
    assert {name: part.accepted for name, part in followed.parts.items()} == by_status == {"a": 1, "b": 0}


def test_institutions_are_shown_while_the_registry_cannot_be_read(tmp_path: Path) -> None:
    """Exactly then the page has something to say: the trouble, and the button that stops a run."""
    home = init_home(tmp_path / "srv", ["localhost"], 8443)
    names = add_institutions(home, 2)
    link: Any = SimpleNamespace(admit=lambda keys: dict(enumerate(keys)), last_seen=dict)
    shared = ServerState(home, Queue(home.folder / "queue"))
    observer = Observer(shared)
    assert [one.name for one in observer.institutions(None)] == names, "before the server has started"
    shared.link = link
    shared.nodes()
    (home.folder / "registry.json").write_text("[", encoding="utf-8")
    assert [one.name for one in observer.institutions(None)] == names
    assert "registry" in shared.troubles
