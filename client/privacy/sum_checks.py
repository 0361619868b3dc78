"""The checks of a statement before a share leaves under it: pure, and nothing of them is the server's word."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from confide.client.privacy.account import Account, AnswerKey, Reservation
from confide.common.errors import PolicyError
from confide.common.protocol.enrolment import signed_by
from confide.common.protocol.secure_sum import ShareEnvelope, SignedShare, Statement, require_mask_key
from confide.common.protocol.wire import MessageError

_SAME = ("study", "lineage", "round", "run_sha256", "base_sha256", "input_sha256", "what")


@dataclass(frozen=True)
class Agreed:
    """The members that a person agreed to, from the locked run.

    Attributes:
        keys: update key of every institution, in hex, by name.
        min_members: the fewest in a sum.
    """

    keys: Mapping[str, str]
    min_members: int


def require_statement(statement: Statement, own: SignedShare, agreed: Agreed) -> None:
    """Check that a share may leave under a statement.

    Formal guarantee: of a statement that passes, every member is one of ``agreed.keys``, once; signed with that very
    key an envelope for the same study, lineage, round, run, base and adapter as ``own``; and has a mask key of its own.
    ``own`` is one of at least ``min_members``. It does not matter who shows the statement, or to whom else.

    Raises:
        PolicyError: it may not leave.
    """
    try:
        envelopes = [_checked(member, own.envelope(), agreed) for member in statement.members]
        names = [envelope.institution for envelope in envelopes]
        if any(later <= earlier for earlier, later in pairwise(names)):
            raise PolicyError("the members of a sum must stand in the order of their names, each once")
        if own not in statement.members:
            raise PolicyError("the sum is without this institution's share, or with another envelope of it")
        if len({envelope.mask_key for envelope in envelopes}) < len(envelopes):
            raise PolicyError("two members of the sum have the same mask key")
        for envelope in envelopes:
            require_mask_key(envelope.mask_key)
    except MessageError as error:
        raise PolicyError(f"the statement of the sum is refused: {error}") from None
    if len(names) < agreed.min_members:
        raise PolicyError(
            f"the sum has {len(names)} members, the run that was approved has federation.min_clients = "
            f"{agreed.min_members}"
        )


def _checked(member: SignedShare, own: ShareEnvelope, agreed: Agreed) -> ShareEnvelope:
    envelope = member.envelope()
    key = agreed.keys.get(envelope.institution)
    if key is None:
        raise PolicyError(f"{envelope.institution!r} is in the sum, but not in the run that was approved")
    if not signed_by(key, member.text, member.signature):
        raise PolicyError(f"the envelope of {envelope.institution!r} is not signed by the key that was approved")
    other = [name for name in _SAME if getattr(envelope, name) != getattr(own, name)]
    if other:
        raise PolicyError(f"the envelope of {envelope.institution!r} is of another {other[0]}")
    return envelope


def require_open(account: Account, key: AnswerKey, asked: tuple[str, str]) -> None:
    """Check that a round's share may still be asked for; ``asked``: hashes of the adapter and of the run.

    Another share of a round that had its release could never leave, and would be charged. A share that a later round
    has passed is deleted, and to show its envelope again would void the round for all members.

    Raises:
        PolicyError: a share of the round left for another ask, or a share of a later round left.
    """
    for reservation in account.reservations.values():
        of = reservation.key
        if reservation.released is None or of.lineage != key.lineage or of.study != key.study:
            continue
        if of.round > key.round:
            raise PolicyError(f"round {key.round} is over: a share of round {of.round} has left")
        if of == key and (reservation.input_sha256, reservation.run_sha256) != asked:
            raise PolicyError(f"round {key.round}: a share of it has left for another adapter or run")


def sealed_share(account: Account, key: AnswerKey, asked: tuple[str, str]) -> Reservation:
    """Return the reservation of the share that answers an ask; ``asked``: hashes of the adapter and of the run.

    Raises:
        PolicyError: there is none, or another share of this round has left.
    """
    of_round = account.answers.get(key, [])
    found = [item for item in of_round if item.sealed_sha256 and (item.input_sha256, item.run_sha256) == asked]
    if not found:
        raise PolicyError(f"round {key.round}: there is no sealed share for this sum")
    if any(item.released for item in of_round if item is not found[0]):
        raise PolicyError(f"round {key.round}: another share of it has left")
    return found[0]
