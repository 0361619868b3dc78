"""The answers to a round: an update of the adapter, or noised counts on the held-out share."""

from collections.abc import Callable

from flwr.app import RecordDict

from confide.client.answers.agreement import agreed_run, names_of, plan_of
from confide.client.answers.answering import AnswerInputs, Price, Work, answered
from confide.client.answers.secure_round import answer_share
from confide.client.privacy.account import Reservation
from confide.client.site.installation import Site
from confide.client.training.local_steps import LocalWork, train
from confide.client.training.shares import ClientProcess
from confide.client.training.validation import validate
from confide.common.config.run import RunConfig
from confide.common.config.sections import SECURE_SUM
from confide.common.errors import PolicyError
from confide.common.model.warm_model import forgetting_on_error
from confide.common.privacy.plan import PrivacyPlan
from confide.common.protocol.answers import Update, seal_envelope
from confide.common.protocol.asks import Ask
from confide.common.protocol.transfer import encode
from confide.common.tensors import dump_state


def answer_update(content: RecordDict, site: Site, client: ClientProcess) -> RecordDict:
    """Train one round; in a secure sum the answer is an envelope, and what was trained stays here."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)
    if run.federation.aggregation == SECURE_SUM:
        return answer_share(ask, run, site, client)

    def compute(prepared: AnswerInputs) -> bytes:
        work = LocalWork(plan_of(run, site), prepared.received, run.local.steps, run.local.learning_rate)
        return encode(train(work, prepared.model, prepared.shares.training, client.coins()), run.federation.transfer)

    return _answer(ask, run, site, client, Price("update", run.local.steps, 0), compute)


def answer_validation(content: RecordDict, site: Site, client: ClientProcess) -> RecordDict:
    """Give noised counts on the held-out share, if the policy shares them and the round is one that has them."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)
    plan, every = plan_of(run, site), run.evaluation.validation_every
    if site.config.policy.share_metrics != "private" or not isinstance(plan, PrivacyPlan):
        raise PolicyError("validation counts are refused: policy.share_metrics is 'none', or the run has no privacy")
    if every is None or ask.round % every:
        raise PolicyError(f"validation counts are refused: round {ask.round} is not one of the plan's")

    def compute(prepared: AnswerInputs) -> bytes:
        counts = validate(plan, prepared.model, prepared.received, prepared.shares.validation, client.coins())
        return dump_state(counts)

    return _answer(ask, run, site, client, Price("validation", 0, 1), compute)


def _answer(
    ask: Ask,
    run: RunConfig,
    site: Site,
    client: ClientProcess,
    price: Price,
    compute: Callable[[AnswerInputs], bytes],
) -> RecordDict:
    """One signed answer through the release protocol."""

    def make(reservation: Reservation, prepared: AnswerInputs) -> bytes:
        with forgetting_on_error():
            payload = compute(prepared)
        envelope = seal_envelope(ask, price.what, names_of(run, site), payload, reservation.hash)
        return Update(envelope, site.identity.sign(envelope.text()), payload).to_bytes()

    return Update.from_bytes(answered(ask, run, site, client, price, Work(make))).content()
