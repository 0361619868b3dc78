"""Delivery of the finished adapter to all participants, and later again to those that it did not reach."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid

from confide.common.config.run import RunConfig
from confide.common.protocol import asks
from confide.common.protocol.answers import content_of, is_declined
from confide.common.protocol.wire import MessageError
from confide.server.fleet.public_port import ServerEndsError
from confide.server.rounds.collect import Clock, collect
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Event

log = logging.getLogger("confide")
_SECONDS = 60.0  # for all participants to fetch it


@dataclass(frozen=True)
class FinishedRun:
    """A run that has reached its end, and its lineage."""

    run: RunConfig
    lineage: str

    def message(self, node: int, receipt: str, files: dict[str, bytes]) -> Message:
        """Return the message that brings the adapter's files to a node, with the receipt of its last update."""
        study, run_sha256 = self.run.study.name, self.run.sha256()
        content = asks.Finished(study, self.lineage, run_sha256, receipt, files).content()
        return Message(content, node, "query.done", ttl=600.0, group_id="done")


def give_out(grid: Grid, clock: Clock, finished: FinishedRun, to: Mapping[int, Institution], adapter: Path) -> set[str]:
    """Send the adapter and the last receipt to nodes. Return the names of institutions that kept it.

    Errors are only logged, because the run is over.
    """
    kept: set[str] = set()
    try:
        files = {path.name: path.read_bytes() for path in sorted(adapter.iterdir()) if path.is_file()}
        messages = [finished.message(node, institution.receipt, files) for node, institution in to.items()]
        for reply in collect(grid, messages, clock.now() + _SECONDS, clock):
            if _is_kept(reply):
                kept.add(to[reply.metadata.src_node_id].name)
    except ServerEndsError:
        log.info("%s: the finished adapter is given out again after the server's next start", adapter)
    except Exception:
        log.exception("%s: the finished adapter could not be given out", adapter)
    return kept


def given_out(names: Collection[str], kept: Collection[str]) -> Event:
    """Return the event for events.jsonl: the participants that kept the adapter, and those that lack it."""
    return {"event": "given_out", "to": sorted(kept), "missing": sorted(set(names) - set(kept))}


def not_delivered_to(events: list[Event], names: Collection[str]) -> list[str]:
    """Return the participants (``names``) that the adapter has not reached, by a run's events."""
    told = [event["to"] for event in events if event["event"] == "given_out"]
    had = {name for to in told if isinstance(to, list) for name in to}  # an earlier version recorded only their number
    return sorted(set(names) - had)


def _is_kept(reply: Message) -> bool:
    try:
        return not is_declined(content_of(reply))
    except MessageError:
        return False
