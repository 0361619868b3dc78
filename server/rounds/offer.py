"""Who takes part: the offer of a run, before its rounds, and who is there when a round begins."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from confide.common.errors import PolicyError
from confide.common.protocol.asks import Ask
from confide.common.protocol.versions import own_versions
from confide.server.rounds.collect import CONNECT_SECONDS, NO_ANSWER, NOT_CONNECTED, RealGrid, collect, wait_for_nodes
from confide.server.rounds.roster import Institution, enrol, offers
from confide.server.rounds.run_context import Event, Job


@dataclass(frozen=True)
class Offered:
    """What became of an offer.

    Attributes:
        asked: how many nodes were.
        taking_part: institutions by node.
        others: what those answered who take no part, by name.
        at: when it was made.
        answers: of those who were asked and take no part, by node.
    """

    asked: int
    taking_part: dict[int, Institution]
    others: dict[str, str]
    at: float = 0.0
    answers: dict[int, str] = field(default_factory=dict)

    def event(self) -> Event:
        """For events.jsonl."""
        units = {item.name: item.declared_units for item in self.taking_part.values()}
        event: Event = {"event": "offered", "asked": self.asked, "accepted": len(units), "declared_units": units}
        return {**event, "others": self.others, "versions": own_versions()}

    def require(self, min_clients: int) -> None:
        """`PolicyError` where too few take part."""
        if len(self.taking_part) < min_clients:
            raise PolicyError(
                f"{len(self.taking_part)} of {len(self.taking_part) + len(self.others)} institutions accepted the run, "
                f"federation.min_clients = {min_clients}"
                + "".join(f"; {name}: {answer}" for name, answer in sorted(self.others.items()))
            )


def offer_run(job: Job, grid: Grid, ask: Ask) -> Offered | None:
    """Offer a run until the ask's deadline; None: an operator stopped it before all had answered.

    Raises:
        PolicyError: too few institutions are approved; nobody is asked, who would set budget aside for it.
    """
    absent = _require_members(job)
    clock, deadline = job.clock, ask.deadline_unix
    soon = min(deadline, clock.now() + CONNECT_SECONDS)
    nodes = wait_for_nodes(grid, job.num_nodes, soon, clock, job.members, job.is_stopped)
    nodes = nodes or wait_for_nodes(grid, 1, deadline, clock, job.members, job.is_stopped)
    at = clock.now()  # before it goes out: who connects anew since then may have lost it
    replies = collect(
        grid, offers(ask, nodes, job.run.federation.deadline_seconds), deadline, clock, is_over=job.is_stopped
    )
    taking_part, others = enrol(replies, job.members, job.run)
    if job.is_stopped():
        return None
    names = {node: job.names.get(node, f"node {node}") for node in nodes}
    names |= {node: member.institution for node, member in (job.members or {}).items()}
    silent = {node: NO_ANSWER if node in nodes else NOT_CONNECTED for node in names if node not in taking_part}
    told = {names[node]: other for node, other in (silent | others).items()}
    told |= dict.fromkeys(absent, "named in study.institutions, but not approved at this server")
    answers = {node: other for node, other in (silent | others).items() if node in nodes}
    return Offered(len(nodes), taking_part, told, at, answers)


def who_is_there(job: Job, grid: Grid, drawn: Mapping[int, Institution]) -> dict[int, Institution]:
    """Those of a round's institutions that are connected: nobody else is asked, or waited for to its deadline.

    Who was away when a round last looked is not waited for, the others for a minute. A quorum is waited for as long as
    a round may last, and after that the rest for a minute: who comes back first does not go on alone. Without a quorum
    nobody is asked: it would be charged for nothing.
    """
    if job.is_stopped():  # tells Flower who was revoked
        return {}
    clock, quorum = job.clock, job.run.federation.min_clients
    known = grid.activated_at() if isinstance(grid, RealGrid) else drawn  # who was revoked has no node any more
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
    """Give those who took part a while to come back: to a server that has just started nobody is connected."""
    wait_for_nodes(grid, len(nodes), job.clock.now() + CONNECT_SECONDS, job.clock, nodes, job.is_stopped)


def _require_members(job: Job) -> list[str]:
    """Whom the run names and nobody has approved."""
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
