"""The offer of a run before its rounds, and the wait for connected participants when a round begins."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from confide.common.errors import PolicyError
from confide.common.protocol.asks import Ask
from confide.common.protocol.versions import own_versions
from confide.server.rounds.collect import CONNECT_SECONDS, NO_ANSWER, NOT_CONNECTED, RealGrid, collect, wait_for_nodes
from confide.server.rounds.participation import after_restart, at_first
from confide.server.rounds.roster import Institution, enrol, offers
from confide.server.rounds.run_context import Event, Job


@dataclass(frozen=True)
class Offered:
    """The result of an offer.

    Attributes:
        asked: number of nodes that were asked.
        taking_part: institutions that accepted, by node.
        others: answers of the institutions that take no part, by name.
        at: time of the offer.
        answers: answers of the nodes that were asked and take no part, by node.
    """

    asked: int
    taking_part: dict[int, Institution]
    others: dict[str, str]
    at: float = 0.0
    answers: dict[int, str] = field(default_factory=dict)

    def event(self) -> Event:
        """Return the event for events.jsonl."""
        units = {item.name: item.declared_units for item in self.taking_part.values()}
        event: Event = {"event": "offered", "asked": self.asked, "accepted": len(units), "declared_units": units}
        return {**event, "others": self.others, "versions": own_versions()}

    def require(self, min_clients: int) -> None:
        """Raise `PolicyError` if too few institutions take part."""
        if len(self.taking_part) < min_clients:
            raise PolicyError(
                f"{len(self.taking_part)} of {len(self.taking_part) + len(self.others)} institutions accepted the run, "
                f"federation.min_clients = {min_clients}"
                + "".join(f"; {name}: {answer}" for name, answer in sorted(self.others.items()))
            )


def offer_run(job: Job, grid: Grid, ask: Ask) -> Offered | None:
    """Offer a run until the ask's deadline. Return None if an operator stopped it before all had answered.

    Raises:
        PolicyError: too few institutions are approved. None is asked, for an ask would make it reserve budget.
    """
    absent = _require_members(job)
    clock, deadline = job.clock, ask.deadline_unix
    soon = min(deadline, clock.now() + CONNECT_SECONDS)
    nodes = wait_for_nodes(grid, job.num_nodes, soon, clock, job.members, job.is_stopped)
    nodes = nodes or wait_for_nodes(grid, 1, deadline, clock, job.members, job.is_stopped)
    at = clock.now()  # taken before the offer goes out: a node that connects anew since then may have lost it
    replies = collect(
        grid, offers(ask, nodes, job.run.federation.deadline_seconds), deadline, clock, is_over=job.is_stopped
    )
    taking_part, others = enrol(replies, job.members, job.run)
    if before := {name: item for name, item in job.resumed.institutions.items() if item.asks}:
        taking_part, refused = after_restart(taking_part, before, job.run, job.size)
    else:  # no round has begun, so none has to go on with the same institutions
        taking_part, refused = at_first(taking_part, job.run, job.size)
    others |= refused
    if job.is_stopped():
        return None
    names = {node: job.names.get(node, f"node {node}") for node in nodes}
    names |= {node: member.institution for node, member in (job.members or {}).items()}
    silent = {node: NO_ANSWER if node in nodes else NOT_CONNECTED for node in names if node not in taking_part}
    told = {names[node]: other for node, other in (silent | others).items()}
    told |= dict.fromkeys(absent, "named in study.institutions, but not approved at this server")
    answers = {node: other for node, other in (silent | others).items() if node in nodes}
    return Offered(len(nodes), taking_part, told, at, answers)


def connected_quorum(job: Job, grid: Grid, drawn: Mapping[int, Institution]) -> dict[int, Institution]:
    """Return the connected institutions of a round. Only these are asked.

    Wait up to a minute for institutions that were connected in the previous round. Without a quorum, wait for one until
    the round's deadline, and then up to a minute for the rest, so that the first to return do not go on alone. If no
    quorum comes, ask none of them: they would be charged for nothing.
    """
    if job.is_stopped():  # this also tells Flower of revoked institutions
        return {}
    clock, quorum = job.clock, job.run.federation.min_clients
    known = grid.activated_at() if isinstance(grid, RealGrid) else drawn  # a revoked one has no node any more
    possible = [node for node in drawn if node in known]
    until = clock.now() + (job.run.federation.deadline_seconds if len(possible) >= quorum else 0)
    expected, soon = [node for node in possible if drawn[node].connected], min(until, clock.now() + CONNECT_SECONDS)
    wait_for_nodes(grid, len(expected), soon, clock, expected, job.is_stopped)
    there = wait_for_nodes(grid, quorum, until, clock, drawn, job.is_stopped)
    if clock.now() > soon:
        soon = min(until, clock.now() + CONNECT_SECONDS)
        there = wait_for_nodes(grid, len(possible), soon, clock, drawn, job.is_stopped)
    for node, institution in drawn.items():
        institution.connected = node in there
    return {node: drawn[node] for node in there} if len(there) >= quorum else {}


def wait_for_return(job: Job, grid: Grid, nodes: Collection[int]) -> None:
    """Give the participants a minute to come back. After a start of the server no client is connected yet."""
    wait_for_nodes(grid, len(nodes), job.clock.now() + CONNECT_SECONDS, job.clock, nodes, job.is_stopped)


def _require_members(job: Job) -> list[str]:
    """Return names in the run that are not approved; `PolicyError` if too few institutions are."""
    if job.members is None:
        return []
    run, approved = job.run, {member.institution for member in job.members.values()}
    absent = sorted(set(run.study.institutions) - approved)
    if len(approved) < run.federation.min_clients:
        raise PolicyError(
            f"{len(approved)} institutions that may take part are approved at this server, federation.min_clients = "
            f"{run.federation.min_clients}" + (f"; not approved: {', '.join(absent)}" if absent else "")
        )
    return absent
