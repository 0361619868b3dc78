"""The two answers to a round of a secure sum: the envelope of a share that stays here, then the masked share."""

import numpy as np
from flwr.app import RecordDict

from confide.client.answers.agreement import (
    acknowledge_receipt,
    agree,
    agreed_run,
    names_of,
    plan_of,
    require_in_time,
)
from confide.client.answers.answering import AnswerInputs, Price, Work, answered
from confide.client.privacy.account import AnswerKey, Reservation
from confide.client.privacy.sum_checks import Agreed, require_open, require_statement
from confide.client.privacy.sum_release import SumRequest, release_sum
from confide.client.privacy.sum_shares import hold_share, require_held
from confide.client.site.installation import Site
from confide.client.training.local_steps import share
from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig
from confide.common.errors import LedgerError, PolicyError
from confide.common.model.warm_model import forgetting_on_error
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan
from confide.common.protocol.asks import Ask
from confide.common.protocol.secure_sum import (
    REHEARSAL,
    SignedShare,
    Statement,
    mask_key_of,
    masked,
    new_mask_secret,
)
from confide.common.protocol.sum_messages import (
    Masked,
    SumAsk,
    seal_share,
    seal_sum,
    share_content,
    share_from_bytes,
    share_to_bytes,
)
from confide.common.protocol.wire import sha256

_SECRET = 32  # bytes of a mask key, before the numbers of a share


def answer_share(ask: Ask, run: RunConfig, site: Site, client: ClientProcess) -> RecordDict:
    """Train one round and keep the noised result; answer with an envelope, in which nothing depends on the data."""
    plan, key = plan_of(run, site), AnswerKey(ask.study, ask.lineage, "update", ask.round)
    if not isinstance(plan, PrivacyPlan):
        raise PolicyError("a secure sum shares noise, and the run has none")
    asked, held = (ask.input_sha256, ask.run_sha256), dict[int, bytes]()
    require_open(site.ledger.account(), key, asked)
    require_held(site.ledger.account(), key, asked, site.shares)

    def make(reservation: Reservation, prepared: AnswerInputs) -> bytes:
        with forgetting_on_error():
            share_P = share(plan, prepared.received, prepared.model, prepared.shares.training, client.coins())
        secret = new_mask_secret()
        held[reservation.number] = secret + share_P.astype("<u4").tobytes()
        envelope = seal_share(ask, names_of(run, site), mask_key_of(secret), reservation.hash)
        return share_to_bytes(SignedShare(envelope.text(), site.identity.sign(envelope.text())))

    def keep(reservation: Reservation) -> None:
        hold_share(reservation, held.pop(reservation.number), site.shares)

    content = answered(ask, run, site, client, Price("update", run.local.steps, 0), Work(make, keep))
    return share_content(share_from_bytes(content))


def answer_sum(content: RecordDict, site: Site, client: ClientProcess) -> RecordDict:
    """Give the held share of a round under the masks of a statement, if it may leave under it."""
    ask = SumAsk.from_content(content)
    run = agreed_run(ask)
    require_in_time(ask, client)
    acknowledge_receipt(ask, site)
    statement = Statement.from_text(ask.statement)

    def agreed(reservation: Reservation) -> Cap:
        cap = agree(run, site, ask.lineage)
        own = _own_share(reservation, site)
        require_own_rows(statement, site)
        require_statement(statement, own, Agreed(run.study.keys, run.federation.min_clients))
        return cap

    def mask(reservation: Reservation, held: bytes) -> tuple[bytes, bytes]:
        share_P = np.frombuffer(held[_SECRET:], dtype="<u4").astype(np.uint32)
        name, base = names_of(run, site)
        numbers = masked(share_P, held[:_SECRET], name, statement).astype("<u4").tobytes()
        envelope = seal_sum(ask, (name, base), numbers, reservation.hash)
        return Masked(envelope, site.identity.sign(envelope.text()), numbers).to_bytes(), numbers

    key = AnswerKey(ask.study, ask.lineage, "update", ask.round)
    request = SumRequest(key, ask.input_sha256, ask.run_sha256, statement.sha256(), len(statement.members))
    answer = Masked.from_bytes(release_sum(request, site.ledger, site.outbox, site.shares, agreed, mask))
    if sha256(answer.payload) != answer.envelope.payload_sha256:
        raise LedgerError(f"round {ask.round}: its masked share in the outbox was changed")
    return answer.content()


def _own_share(reservation: Reservation, site: Site) -> SignedShare:
    content = site.outbox.get(reservation.answer_file)
    if content is None or sha256(content) != reservation.sealed_sha256:
        raise LedgerError(f"round {reservation.key.round}: its sealed envelope is gone from the outbox, or was changed")
    return share_from_bytes(content)


def require_own_rows(statement: Statement, site: Site) -> None:
    """Check that this institution's own envelopes in a statement name rows of its ledger.

    Raises:
        LedgerError: one that the own key signed names a row that no ledger here has: an old copy was put back.
    """
    for member in statement.members:
        if site.identity.signed_by_me(member.text, member.signature):
            envelope = member.envelope()
            if envelope.what != REHEARSAL and not site.ledger.knows(envelope.ledger_head):
                raise LedgerError(
                    "the server shows a share that this ledger does not know: ledger.db is older than what was sent; "
                    "put back the newest one"
                )
