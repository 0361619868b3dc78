"""The answer to a rehearsal: that of an offer, and an update from made-up records."""

from flwr.app import RecordDict

from confide.client.answers.agreement import agree, agreed_run, is_waiting, plan_of, require_in_time
from confide.client.answers.offer import acceptance
from confide.client.site.installation import Institution
from confide.client.training.made_up import rehearse
from confide.client.training.shares import ClientProcess, model_of
from confide.common.model.adapter import schema
from confide.common.model.warm_model import forgetting_on_error
from confide.common.protocol.answers import Rehearsed, waiting
from confide.common.protocol.asks import Ask
from confide.common.protocol.gate import RECEIVED_NORM_BOUND
from confide.common.protocol.transfer import decode, encode


def answer_rehearsal(content: RecordDict, site: Institution, client: ClientProcess) -> RecordDict:
    """Rehearse a round. The answer is that to an offer, but no record is read, and the ledger is only read."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)
    require_in_time(ask, client)
    if is_waiting(run, site):
        return waiting()
    agree(run, site, ask.lineage)
    model = model_of(run, site)
    received = decode(ask.adapter, schema(model.module), run.federation.transfer, RECEIVED_NORM_BOUND)
    with forgetting_on_error():
        change = rehearse(
            run, plan_of(run, site), received, model, client.coins(), site.config.compute.tokens_per_micro_batch
        )
    return Rehearsed(acceptance(site), encode(change, run.federation.transfer)).content()
