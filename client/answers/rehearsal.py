"""The answers to a rehearsal: that of an offer, with an update from made-up records, or the masks of a secure sum."""

import math

import numpy as np
from flwr.app import RecordDict

from confide.client.answers.agreement import agree, agreed_run, is_waiting, names_of, plan_of, require_in_time
from confide.client.answers.answering import require_room
from confide.client.answers.offer import acceptance
from confide.client.privacy.sum_checks import Agreed, require_statement
from confide.client.site.installation import Institution
from confide.client.training.made_up import rehearse, rehearse_share
from confide.client.training.shares import ClientProcess, RehearsedShare, model_of
from confide.common.config.run import RunConfig
from confide.common.errors import PolicyError
from confide.common.model.adapter import schema
from confide.common.model.warm_model import forgetting_on_error
from confide.common.privacy.plan import PrivacyPlan
from confide.common.protocol.answers import Rehearsed, waiting
from confide.common.protocol.asks import Ask
from confide.common.protocol.gate import RECEIVED_NORM_BOUND
from confide.common.protocol.secure_sum import (
    NO_ROW,
    REHEARSAL,
    SignedShare,
    Statement,
    mask_key_of,
    masked,
    new_mask_secret,
)
from confide.common.protocol.sum_messages import Masked, SumAsk, seal_share, seal_sum, share_content
from confide.common.protocol.transfer import decode, encode


def answer_rehearsal(content: RecordDict, site: Institution, client: ClientProcess) -> RecordDict:
    """Rehearse a round. The answer is that to an offer, but no record is read, and the ledger is only read."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)
    require_in_time(ask, client)
    if is_waiting(run, site):
        return waiting()
    agree(run, site, ask.lineage)
    model, plan = model_of(run, site), plan_of(run, site)
    shapes = schema(model.module)
    require_room(run, sum(math.prod(shape) for shape in shapes.values()))
    received = decode(ask.adapter, shapes, run.federation.transfer, RECEIVED_NORM_BOUND)
    step = (received, model, client.coins(), site.config.compute.tokens_per_micro_batch)
    with forgetting_on_error():
        if isinstance(plan, PrivacyPlan) and plan.sharing is not None:
            return _rehearsed_share(ask, run, site, client, rehearse_share(run, plan, *step))
        change = rehearse(run, plan, *step)
    return Rehearsed(acceptance(site), encode(change, run.federation.transfer)).content()


def _rehearsed_share(ask: Ask, run: RunConfig, site: Institution, client: ClientProcess, size: int) -> RecordDict:
    """Hold a share of zeros in memory. Return the acceptance of the run, and the envelope of that share."""
    secret = new_mask_secret()
    envelope = seal_share(ask, names_of(run, site), mask_key_of(secret), NO_ROW, REHEARSAL)
    signed = SignedShare(envelope.text(), site.identity.sign(envelope.text()))
    client.rehearsed[site.config.institution.name] = RehearsedShare(secret, signed, size)
    return RecordDict({**acceptance(site).content(), **share_content(signed)})


def answer_rehearsed_sum(content: RecordDict, site: Institution, client: ClientProcess) -> RecordDict:
    """Mask the zeros of a rehearsal, under a statement that passes the checks of a round's. Nothing is written."""
    ask = SumAsk.from_content(content)
    run = agreed_run(ask)
    require_in_time(ask, client)
    agree(run, site, ask.lineage)
    names = names_of(run, site)
    held = client.rehearsed.get(names[0])
    if held is None or held.signed.envelope() != seal_share(ask, names, mask_key_of(held.secret), NO_ROW, REHEARSAL):
        raise PolicyError("no share of a rehearsal is held for this sum; rehearse again")
    statement = Statement.from_text(ask.statement)
    require_statement(statement, held.signed, Agreed(run.study.keys, run.federation.min_clients))
    numbers = masked(np.zeros(held.size, np.uint32), held.secret, names[0], statement).astype("<u4").tobytes()
    envelope = seal_sum(ask, names, numbers, NO_ROW, REHEARSAL)
    return Masked(envelope, site.identity.sign(envelope.text()), numbers).content()
