"""The finished adapter, given to everybody who took part; later again to those whom it did not reach."""

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
from confide.server.rounds.collect import Clock, collect
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Event

log = logging.getLogger("confide")
_SECONDS = 60.0  # for everybody to fetch it


@dataclass(frozen=True)
class FinishedRun:
    """Which run it is that has reached its end."""

    run: RunConfig
    lineage: str

    def message(self, node: int, receipt: str, files: dict[str, bytes]) -> Message:
        """The adapter's files to a node, with the receipt of its last update."""
        study, run_sha256 = self.run.study.name, self.run.sha256()
        content = asks.Finished(study, self.lineage, run_sha256, receipt, files).content()
        return Message(content, node, "query.done", ttl=600.0, group_id="done")


def give_out(grid: Grid, clock: Clock, finished: FinishedRun, to: Mapping[int, Institution], adapter: Path) -> set[str]:
    """Send the adapter and the last receipt to nodes; returns who has kept it.

    An error is the log's alone, for the run is over.
    """
    kept: set[str] = set()
    try:
        files = {path.name: path.read_bytes() for path in sorted(adapter.iterdir()) if path.is_file()}
        asks = [finished.message(node, institution.receipt, files) for node, institution in to.items()]
        for reply in collect(grid, asks, clock.now() + _SECONDS, clock):
            if _is_kept(reply):
                kept.add(to[reply.metadata.src_node_id].name)
    except Exception:
        log.exception("%s: the finished adapter could not be given out", adapter)
    return kept


def given_out(names: Collection[str], kept: Collection[str]) -> Event:
    """For events.jsonl: who of those who took part has it now, and who has not."""
    return {"event": "given_out", "to": sorted(kept), "missing": sorted(set(names) - set(kept))}


def owed(events: list[Event], names: Collection[str]) -> list[str]:
    """Whom the adapter has not reached, by a run's events; ``names`` took part."""
    told = [event["to"] for event in events if event["event"] == "given_out"]
    had = {name for to in told if isinstance(to, list) for name in to}  # an earlier version told their number alone
    return sorted(set(names) - had)


def _is_kept(reply: Message) -> bool:
    try:
        return not is_declined(content_of(reply))
    except MessageError:
        return False
