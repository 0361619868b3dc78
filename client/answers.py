"""What an institution does with an ask: check everything, then act."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flwr.app import RecordDict

from confide.client.account import Key, Reservation, What
from confide.client.adapters import store_adapter
from confide.client.agreement import acknowledge_receipt, agree, agreed_run, is_waiting, plan_of, require_in_time
from confide.client.arrival import check_files, require_taken_part
from confide.client.offers import keep_offer
from confide.client.preparation import Client, Shares, model_of, shares_of
from confide.client.rehearsal import rehearse
from confide.client.release import Request, release
from confide.client.rules import may_open, require_steps_left
from confide.client.site import Site
from confide.client.training import LocalWork, train
from confide.client.validation import validate
from confide.common.adapter import schema
from confide.common.errors import PolicyError
from confide.common.gate import RECEIVED_NORM_BOUND, State, dump_state
from confide.common.messages import Acceptance, Ask, Finished, Update, seal_envelope, waiting
from confide.common.privacy.coins import Coins
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan
from confide.common.rehearsal import Rehearsed
from confide.common.run_config import RunConfig
from confide.common.transfer import decode, encode
from confide.common.warm_model import WarmModel, forget_models


def accept(content: RecordDict, site: Site, client: Client) -> RecordDict:
    """Agree to a run: policy, base model and data are checked, and the ledger allots the plan's steps."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)
    acknowledge_receipt(ask, site)
    if is_waiting(run, site):
        return waiting()
    cap = agree(run, site)
    require_steps_left(site.ledger.account(), run.study.name, ask.lineage)
    if site.offers:
        keep_offer(site.offers, run)  # `doctor` looks at its labels and its base model
    shares_of(run, site, client, joining=True)
    site.ledger.open_study(run.study.name, plan_of(run, site), cap)
    return _acceptance(site).content()


def answer_rehearsal(content: RecordDict, site: Site, client: Client) -> RecordDict:
    """Rehearse a round. The answer is that to an offer, but no record is read, and the ledger is only read."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)
    require_in_time(ask, client)
    if is_waiting(run, site):
        return waiting()
    cap, plan, account = agree(run, site), plan_of(run, site), site.ledger.account()
    if account.number:
        may_open(account, run.study.name, plan, cap)
        require_steps_left(account, run.study.name, ask.lineage)
    model = model_of(run, site)
    received = decode(ask.adapter, schema(model.module), run.federation.transfer, RECEIVED_NORM_BOUND)
    with _forgetting_on_error():
        change = rehearse(run, plan, received, model, client.coins(), site.config.compute.tokens_per_micro_batch)
    return Rehearsed(_acceptance(site), encode(change, run.federation.transfer)).content()


def answer_update(content: RecordDict, site: Site, client: Client) -> RecordDict:
    """Train one round."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)

    def compute(model: WarmModel, shares: Shares, received: State) -> bytes:
        plan = plan_of(run, site)
        work = LocalWork(plan, received, run.local.steps, run.local.learning_rate)
        return encode(train(work, model, shares.training, client.coins()), run.federation.transfer)

    return _answer(ask, run, site, client, ("update", run.local.steps, 0), compute)


def answer_validation(content: RecordDict, site: Site, client: Client) -> RecordDict:
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
    client: Client,
    price: tuple[What, int, int],
    compute: Callable[[WarmModel, Shares, State], bytes],
) -> RecordDict:
    """One answer through the release protocol; ``price`` is what it is, its steps and its validation releases."""
    require_in_time(ask, client)
    acknowledge_receipt(ask, site)
    what, steps, releases = price
    ready: list[tuple[WarmModel, Shares, State]] = []

    def agreed() -> Cap:
        if not 1 <= ask.round <= run.federation.num_rounds:
            raise PolicyError(f"round {ask.round} is refused: the run has {run.federation.num_rounds}")
        cap = agree(run, site)
        model, shares = shares_of(run, site, client, joining=False)
        received = decode(ask.adapter, schema(model.module), run.federation.transfer, RECEIVED_NORM_BOUND)
        ready.append((model, shares, received))
        site.ledger.open_study(run.study.name, plan_of(run, site), cap)
        return cap

    def make(reservation: Reservation) -> bytes:
        with _forgetting_on_error():
            payload = compute(*ready[0])
        name, base = site.config.institution.name, str(run.model.sha256)
        envelope = seal_envelope(ask, what, (name, base), payload, reservation.hash)
        return Update(envelope, site.identity.sign(envelope.text()), payload).to_bytes()

    key = Key(ask.study, ask.lineage, what, ask.round)
    coins = "os" if client.coins == Coins.fresh else "test"
    request = Request(key, steps, releases, ask.input_sha256, ask.plan_sha256, coins)
    return Update.from_bytes(release(request, site.ledger, site.outbox, agreed, make)).content()


@contextmanager
def _forgetting_on_error() -> Iterator[None]:
    try:
        yield
    except BaseException:
        forget_models()  # they may hold activations of a step that an error ended
        raise


def _acceptance(site: Site) -> Acceptance:
    declared_units, key = site.config.dataset.declared_units, site.identity.public_hex()
    return Acceptance(site.config.institution.name, declared_units, key)


def keep_adapter(content: RecordDict, site: Site, client: Client) -> RecordDict:
    """Keep a finished adapter in ``models/``, for a run that this institution's ledger has reserved for."""
    finished = Finished.from_content(content)
    acknowledge_receipt(finished, site)
    client.finish(site.config.institution.name, finished.plan_sha256)
    require_taken_part(finished, site.ledger.account())
    if site.models is None:
        raise PolicyError(f"a finished adapter of study {finished.study!r} came to a simulation, which keeps none")
    store_adapter(site.models, finished.study, finished.lineage, check_files(finished, site.models))
    return RecordDict()
