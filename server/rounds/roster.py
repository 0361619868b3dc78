"""The participants of a run: institutions that accepted the offer, by node. Their replies are checked here too."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import Message, RecordDict

from confide.common.config.run import RunConfig, make_plan
from confide.common.protocol.answers import Acceptance, Update, content_of, is_declined, seal_envelope
from confide.common.protocol.asks import Ask
from confide.common.protocol.enrolment import signed_by
from confide.common.protocol.gate import size_problem, update_norm_bound
from confide.common.protocol.secure_sum import SignedShare, require_mask_key
from confide.common.protocol.sum_messages import Masked, SumAsk, seal_share, seal_sum, share_from
from confide.common.protocol.wire import MessageError
from confide.common.tensors import Schema
from confide.server.home.registry import Member

Members = Mapping[int, Member]

WAITING = "waiting for approval"
_MAX_ATTEMPTS = 2  # an institution charges at most these for one answer: the first, and one retry


@dataclass
class Institution:
    """The server's knowledge of an institution: its declaration, its asks and the outcomes of its replies."""

    name: str
    declared_units: int
    update_key: str = ""
    num_steps: int = 0
    num_releases: int = 0
    receipt: str = ""  # receipt of its last accepted update
    connected: bool = True  # in the last round that checked
    outcomes: dict[int, str | None] = field(default_factory=dict)  # by round: the reason if its update was dropped
    asks: Counter[tuple[str, int]] = field(default_factory=Counter)  # number of asks by kind and round

    @property
    def accepted(self) -> int:
        """The number of rounds that accepted its update."""
        return sum(reason is None for reason in self.outcomes.values())

    @property
    def dropped(self) -> list[str]:
        """The rounds that dropped its update, with the reasons."""
        return [f"round {number}: {reason}" for number, reason in self.outcomes.items() if reason is not None]

    def forget_from_round(self, number: int) -> None:
        """Forget the outcomes of a round that is repeated, and of later ones."""
        self.outcomes = {of: reason for of, reason in self.outcomes.items() if of < number}

    def norm_bound(self, run: RunConfig, shapes: Schema) -> float:
        """Return a norm that no honest update of its declared size exceeds."""
        plan = make_plan(run, self.declared_units)
        return update_norm_bound(plan, shapes, run.local.steps, run.local.learning_rate)

    def ask(self, what: str, number: int, run: RunConfig) -> None:
        """Count an ask at its highest possible cost, whatever its outcome.

        A site charges at its RESERVE, and again for its one retry. A second ask is free if the answer was sealed, but
        the server cannot know whether a crash took that answer. A site never charges more than its plan.
        """
        self.asks[what, number] += 1
        if self.asks[what, number] > _MAX_ATTEMPTS:
            return
        if what == "update":
            self.num_steps = min(run.num_steps, self.num_steps + run.local.steps)
        else:
            self.num_releases = min(run.validation_releases, self.num_releases + 1)


def carry_counts_over(taking_part: Mapping[str, Institution], before: Mapping[str, Institution]) -> list[Institution]:
    """Continue the counts from before a crash. Return the institutions that took part then but not now."""
    for name in taking_part.keys() & before.keys():
        now, then = taking_part[name], before[name]
        now.num_steps, now.num_releases, now.asks = then.num_steps, then.num_releases, then.asks
        now.outcomes = then.outcomes
    return [item for name, item in before.items() if name not in taking_part]


def take_in(
    joined: Mapping[int, Institution], there: Mapping[int, Institution], gone: list[Institution]
) -> tuple[dict[int, Institution], list[Institution]]:
    """Return the present and the gone institutions after others have joined. A new key continues the old counts."""
    names = {item.name: item for item in joined.values()}
    carry_counts_over(names, {item.name: item for item in (*there.values(), *gone)})
    taking_part = {node: item for node, item in there.items() if item.name not in names} | dict(joined)
    return dict(sorted(taking_part.items())), [item for item in gone if item.name not in names]


def offers(ask: Ask, nodes: list[int], seconds: float) -> list[Message]:
    """Return the offer of a run, one message for each node, open for ``seconds``.

    An institution reads, checks and encodes its records before it accepts. A reply inherits the remaining ttl of the
    offer, and Flower refuses a reply with none left.
    """
    content = ask.content()
    return [Message(content, node, "query.offer", ttl=seconds + 600, group_id="0") for node in nodes]


def enrol(
    replies: Iterable[Message], members: Members | None, run: RunConfig
) -> tuple[dict[int, Institution], dict[int, str]]:
    """Return the institutions that take part.

    Args:
        replies: replies to an offer.
        members: approved institutions by node; None in a simulation, where every node is ours.
        run: the offered run.

    Returns:
        Institutions by node, sorted by node, and the answers of the others. A node is left out if its name or key is
        not the approved one, or if its size is far from what the run assumes. If two nodes have one name, neither
        takes part.
    """
    accepted: dict[int, Acceptance] = {}
    others: dict[int, str] = {}
    for reply in replies:
        node = reply.metadata.src_node_id
        try:
            content = content_of(reply)
            if list(content) in (["declined"], ["waiting"]):
                others[node] = "declined" if is_declined(content) else WAITING
                continue
            acceptance = Acceptance.from_content(content)
        except MessageError as error:
            others[node] = str(error)
            continue
        problem = _problem(acceptance, members.get(node), run) if members is not None else None
        problem = problem or _other_key(acceptance, run)
        if problem:
            others[node] = problem
        else:
            accepted[node] = acceptance
    names = [acceptance.institution for acceptance in accepted.values()]
    taking_part = {
        node: Institution(one.institution, one.declared_units, one.update_key)
        for node, one in sorted(accepted.items())
        if names.count(one.institution) == 1
    }
    return taking_part, others


def _problem(acceptance: Acceptance, member: Member | None, run: RunConfig) -> str | None:
    """Return the reason for leaving out an institution that accepted, if there is one."""
    names = acceptance.institution, acceptance.update_key
    if member is None or (member.institution, member.update_key) != names:
        return "another name or key than it was approved under"
    return size_problem(acceptance.declared_units, run.local.nominal_units)


def _other_key(acceptance: Acceptance, run: RunConfig) -> str | None:
    """Return the reason for leaving out an institution that is not among those of a secure sum, under its key."""
    if run.study.keys and run.study.keys.get(acceptance.institution) != acceptance.update_key:
        return "its name and key are not those in study.keys of the run"
    return None


def check_answer(reply: Message, ask: Ask, what: str, institution: Institution, run: RunConfig) -> Update:
    """Return a reply as this institution's answer to this ask, without a look at its payload.

    Raises:
        MessageError: declined, malformed, signed by another, or an answer to something else.
    """
    update = Update.from_content(_records(reply))
    expected = seal_envelope(ask, what, (institution.name, str(run.model.sha256)), update.payload, "")
    said = update.envelope
    _require_same(said, replace(expected, update_id=said.update_id, ledger_head=said.ledger_head))
    _require_signed(institution, said.text(), update.signature)
    return update


def check_share(reply: Message, ask: Ask, institution: Institution, run: RunConfig, what: str = "share") -> SignedShare:
    """Return a reply as this institution's envelope of a share for this ask.

    Raises:
        MessageError: declined, malformed, signed by another, or an answer to something else.
    """
    share = share_from(_records(reply))
    said = share.envelope()
    expected = seal_share(ask, (institution.name, str(run.model.sha256)), said.mask_key, said.ledger_head, what)
    _require_same(said, expected)
    _require_signed(institution, share.text, share.signature)
    require_mask_key(said.mask_key)
    return share


def check_masked(
    reply: Message, ask: SumAsk, institution: Institution, run: RunConfig, size: int, what: str = "sum"
) -> Masked:
    """Return a reply as this institution's masked share under the statement of an ask.

    Raises:
        MessageError: declined, malformed, signed by another, or an answer to something else.
    """
    masked = Masked.from_content(_records(reply))
    masked.numbers(size)
    said = masked.envelope
    expected = seal_sum(ask, (institution.name, str(run.model.sha256)), masked.payload, said.ledger_head, what)
    _require_same(said, expected)
    _require_signed(institution, said.text(), masked.signature)
    return masked


def _records(reply: Message) -> RecordDict:
    """Return the records of a reply; `MessageError` if it declines."""
    content = content_of(reply)
    if is_declined(content):
        raise MessageError("declined")
    return content


def _require_same(said: object, expected: object) -> None:
    if said != expected:
        raise MessageError("envelope: not an answer to this ask")


def _require_signed(institution: Institution, text: str, signature: str) -> None:
    if not signed_by(institution.update_key, text, signature):
        raise MessageError("signature: not this institution's")
