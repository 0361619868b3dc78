"""The answers to a round: an update of the adapter, or noised counts on the held-out share."""

from collections.abc import Callable

from flwr.app import RecordDict

from confide.client.answers.agreement import acknowledge_receipt, agree, agreed_run, plan_of, require_in_time
from confide.client.privacy.account import AnswerKey, AnswerKind, Reservation
from confide.client.privacy.release import AnswerRequest, release
from confide.client.site.installation import Site
from confide.client.training.local_steps import LocalWork, train
from confide.client.training.shares import ClientProcess, Shares, shares_of
from confide.client.training.validation import validate
from confide.common.config.run import RunConfig
from confide.common.errors import PolicyError
from confide.common.model.adapter import schema
from confide.common.model.warm_model import WarmModel, forgetting_on_error
from confide.common.privacy.coins import Coins
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan
from confide.common.protocol.answers import Update, seal_envelope
from confide.common.protocol.asks import Ask
from confide.common.protocol.gate import RECEIVED_NORM_BOUND
from confide.common.protocol.transfer import decode, encode
from confide.common.tensors import State, dump_state


def answer_update(content: RecordDict, site: Site, client: ClientProcess) -> RecordDict:
    """Train one round."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)

    def compute(model: WarmModel, shares: Shares, received: State) -> bytes:
        plan = plan_of(run, site)
        work = LocalWork(plan, received, run.local.steps, run.local.learning_rate)
        return encode(train(work, model, shares.training, client.coins()), run.federation.transfer)

    return _answer(ask, run, site, client, ("update", run.local.steps, 0), compute)


def answer_validation(content: RecordDict, site: Site, client: ClientProcess) -> RecordDict:
    """Give noised counts on the held-out share, if the policy shares them and the round is one that has them."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)
    plan, every = plan_of(run, site), run.evaluation.validation_every
    if site.config.policy.share_metrics != "private" or not isinstance(plan, PrivacyPlan):
        raise PolicyError("validation counts are refused: policy.share_metrics is 'none', or the run has no privacy")
    if every is None or ask.round % every:
        raise PolicyError(f"validation counts are refused: round {ask.round} is not one of the plan's")

    def compute(model: WarmModel, shares: Shares, received: State) -> bytes:
        return dump_state(validate(plan, model, received, shares.validation, client.coins()))

    return _answer(ask, run, site, client, ("validation", 0, 1), compute)


def _answer(
    ask: Ask,
    run: RunConfig,
    site: Site,
    client: ClientProcess,
    price: tuple[AnswerKind, int, int],
    compute: Callable[[WarmModel, Shares, State], bytes],
) -> RecordDict:
    """One answer through the release protocol; ``price`` is what it is, its steps and its validation releases."""
    require_in_time(ask, client)
    acknowledge_receipt(ask, site)
    what, steps, releases = price

    def agreed() -> tuple[Cap, tuple[WarmModel, Shares, State]]:
        if not 1 <= ask.round <= run.federation.num_rounds:
            raise PolicyError(f"round {ask.round} is refused: the run has {run.federation.num_rounds}")
        cap = agree(run, site, ask.lineage)
        model, shares = shares_of(run, site, client, joining=False)
        received = decode(ask.adapter, schema(model.module), run.federation.transfer, RECEIVED_NORM_BOUND)
        site.ledger.open_study(run.study.name, plan_of(run, site), cap)
        return cap, (model, shares, received)

    def make(reservation: Reservation, prepared: tuple[WarmModel, Shares, State]) -> bytes:
        with forgetting_on_error():
            payload = compute(*prepared)
        name, base = site.config.institution.name, str(run.model.sha256)
        envelope = seal_envelope(ask, what, (name, base), payload, reservation.hash)
        return Update(envelope, site.identity.sign(envelope.text()), payload).to_bytes()

    key = AnswerKey(ask.study, ask.lineage, what, ask.round)
    coins = "os" if client.coins == Coins.fresh else "test"
    request = AnswerRequest(key, steps, releases, ask.input_sha256, ask.run_sha256, coins)
    return Update.from_bytes(release(request, site.ledger, site.outbox, agreed, make)).content()
