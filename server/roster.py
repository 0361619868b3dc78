"""Who takes part in a run: institutions that accepted the offer, by node."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Message

from confide.common.messages import Acceptance, Ask, MessageError, content_of


@dataclass
class Institution:
    """What the server knows of an institution: what it declared, and what became of its replies."""

    name: str
    declared_units: int
    num_steps: int = 0
    accepted: int = 0
    dropped: list[str] = field(default_factory=list)


def offers(ask: Ask, nodes: list[int]) -> list[Message]:
    """The offer of a run, one message for each node."""
    content = ask.content()
    return [Message(content, node, "query.offer", ttl=600.0, group_id="0") for node in nodes]


def enrol(replies: Iterable[Message]) -> dict[int, Institution]:
    """Institutions by node, in the order of nodes; of two nodes with one name neither takes part."""
    accepted: dict[int, Acceptance] = {}
    for reply in replies:
        try:
            accepted[reply.metadata.src_node_id] = Acceptance.from_content(content_of(reply))
        except MessageError:
            continue
    names = [acceptance.institution for acceptance in accepted.values()]
    return {
        node: Institution(acceptance.institution, acceptance.declared_units)
        for node, acceptance in sorted(accepted.items())
        if names.count(acceptance.institution) == 1
    }
