"""Late offers: the server offers a run to approved institutions that connect later. No round waits for them."""

from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from confide.common.protocol.asks import Ask
from confide.common.protocol.versions import own_versions
from confide.server.rounds.collect import NO_ANSWER, RealGrid
from confide.server.rounds.offer import Offered
from confide.server.rounds.participation import with_room
from confide.server.rounds.roster import WAITING, Institution, enrol, offers
from confide.server.rounds.run_context import Job

_AGAIN_SECONDS = 60.0  # until the next offer to one that waits for a person's approval, or was silent


@dataclass(frozen=True)
class _Last:
    """The last offer to a node: the time it was made or answered, and the answer (None while it is open)."""

    at: float
    answer: str | None


class Newcomers:
    """The offers of a run after its first: one to each new connection, and repeats to nodes that wait for approval.

    Args:
        job: the run; its ``members_now`` returns the approved institutions.
        offered: the result of the first offer.
    """

    def __init__(self, job: Job, offered: Offered) -> None:
        self._job, self._out = job, dict[str, Message]()
        self._last = {node: _Last(offered.at, answer) for node, answer in offered.answers.items()}
        self._told = dict(offered.answers)

    def take(self, grid: Grid, number: int, known: Iterable[Institution]) -> dict[int, Institution]:
        """Return the institutions that accepted since the last call, and fit into a secure sum with all ``known``.

        The known are those who take part, and those who did before a restart and may return. The new take part from
        round ``number`` on. An event records them first.
        """
        replies, members = self._replies(grid), self._job.members_now()
        if not replies or members is None:
            return {}
        joined, others = enrol((reply for reply in replies if not reply.has_error()), members, self._job.run)
        joined, refused = with_room(joined, known, self._job.run, self._job.size)
        others, now = others | refused, self._job.clock.now()
        for reply in replies:
            node = reply.metadata.src_node_id
            self._last[node] = _Last(now, others.get(node, NO_ANSWER))
        news = {node: answer for node, answer in others.items() if self._told.get(node) != answer}
        self._told |= news
        if joined or news:
            names = {node: member.institution for node, member in members.items()}
            told = {names.get(node, f"node {node}"): answer for node, answer in news.items()}
            units = {item.name: item.declared_units for item in joined.values()}
            facts = {"declared_units": units, "others": told, "versions": own_versions()}
            self._job.emit({"event": "offered_later", "round": number, **facts})
        return joined

    def offer(self, grid: Grid, ask: Ask, known: Container[int]) -> None:
        """Offer the run to nodes that are connected, approved, not ``known`` and due for an offer."""
        members, at, lasts = self._job.members_now(), self._job.clock.now(), self._job.run.federation.deadline_seconds
        activated = grid.activated_at() if isinstance(grid, RealGrid) else {}
        self._give_up(grid, [sent.metadata.dst_node_id for sent in self._out.values() if self._is_old(sent, at)])
        there = [node for node in grid.get_node_ids() if members and node in members and node not in known]
        due = [node for node in there if self._is_due(node, activated.get(node, 0.0), at)]
        self._give_up(grid, due)
        messages = offers(ask, due, lasts)
        self._out |= dict(zip(grid.push_messages(messages), messages, strict=True)) if messages else {}
        self._last |= {node: _Last(at, None) for node in due}

    def _is_old(self, sent: Message, now: float) -> bool:
        return now > self._last[sent.metadata.dst_node_id].at + self._job.run.federation.deadline_seconds

    def _is_due(self, node: int, activated: float, now: float) -> bool:
        """Return whether a node is due for an offer.

        After a new connection it is, for Flower hands out an offer once, so the older one may be lost.
        """
        last = self._last.get(node)
        if last is None or activated > last.at:
            return True
        return last.answer in (WAITING, NO_ANSWER) and now >= last.at + _AGAIN_SECONDS

    def _give_up(self, grid: Grid, nodes: Collection[int]) -> None:
        """Withdraw the open offers to these nodes."""
        old = [offer for offer, sent in self._out.items() if sent.metadata.dst_node_id in nodes]
        for offer in old:
            node = self._out.pop(offer).metadata.dst_node_id
            self._last[node] = _Last(self._last[node].at, NO_ANSWER)
        if old and isinstance(grid, RealGrid):
            grid.forget(old)

    def _replies(self, grid: Grid) -> list[Message]:
        """Return replies to the open offers, each from the node that the offer went to."""
        found = []
        while self._out and (replies := list(grid.pull_messages(list(self._out)))):
            for reply in replies:
                sent = self._out.get(reply.metadata.reply_to_message_id)
                if sent is not None and sent.metadata.dst_node_id == reply.metadata.src_node_id:
                    del self._out[reply.metadata.reply_to_message_id]
                    found.append(reply)
        return found
