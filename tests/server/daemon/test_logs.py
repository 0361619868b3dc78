"""The log of a server: a bad call of a library ends no run."""

import logging

from confide.server.daemon.logs import RecentLines


def test_a_bad_call_of_a_library_raises_nothing_into_its_caller() -> None:
    log, recent = logging.Logger("library"), RecentLines()
    log.addHandler(recent)
    log.info("%d", "no number")
    log.warning("after it")
    assert len(recent.lines) == 1
    assert "after it" in recent.lines[0]
