"""Who takes part in a run: institutions that accepted the offer, by node; and whether a reply is their answer."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from flwr.app import Message

from confide.common.messages import Acceptance, Ask, MessageError, Update, content_of, is_declined, seal_envelope


@dataclass
class Institution:
    """What the server knows of an institution: what it declared, and what became of its replies."""

    name: str
    declared_units: int
    num_steps: int = 0
    num_releases: int = 0
    receipt: str = ""  # of its last accepted update
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


def check_answer(
    reply: Message, ask: Ask | None, what: str, institution: Institution, base_sha256: str | None
) -> Update:
    """A reply as this institution's answer to this ask; its payload has not been looked at.

    Raises:
        MessageError: declined, another form, or an answer to something else.
    """
    content = content_of(reply)
    if is_declined(content):
        raise MessageError("declined")
    update = Update.from_content(content)
    if ask is None or base_sha256 is None:
        raise MessageError("nothing was asked")
    expected = seal_envelope(ask, what, (institution.name, base_sha256), update.payload, "")
    said = update.envelope
    if said != replace(expected, update_id=said.update_id, ledger_head=said.ledger_head):
        raise MessageError("envelope: not an answer to this ask")
    return update
