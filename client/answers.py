"""What an institution does with an ask: check everything, then act."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import RecordDict

from confide.client.account import Key, Reservation, What
from confide.client.offers import keep_offer
from confide.client.policy import Request as PolicyRequest
from confide.client.policy import cap_of, refusals, waits_for_approval
from confide.client.preparation import Shares, prepare
from confide.client.release import Request, acknowledge, release
from confide.client.site import Site
from confide.client.training import LocalWork, train
from confide.client.validation import validate
from confide.common.adapter import schema
from confide.common.durable import replace_durably
from confide.common.errors import PolicyError
from confide.common.gate import RECEIVED_NORM_BOUND, State, dump_state, load_state
from confide.common.messages import Acceptance, Ask, Finished, Update, read_receipt, seal_envelope, waiting
from confide.common.privacy.coins import Coins, CoinSource
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import Plan, PrivacyPlan
from confide.common.run_config import RunConfig, make_plan
from confide.common.warm_model import WarmModel, forget_models, warm_model
from confide.common.wire import MessageError, sha256

_MOST_SHARES = 128  # institutions of one client process; a real one has one


@dataclass
class Client:
    """What a client process keeps between messages, and where its randomness and its time come from."""

    coins: Callable[[], CoinSource] = Coins.fresh
    now: Callable[[], float] = time.time
    shares: dict[str, tuple[str, Shares]] = field(default_factory=dict)  # by institution, and for what run and dataset

    def keep(self, institution: str, made_for: str, shares: Shares) -> None:
        """Keep encoded shares, of so many institutions as fit; a simulation encodes the others' again each time.

        The first stay: had the oldest to go, a round over a few too many would find nothing of the last one's.
        """
        if institution in self.shares or len(self.shares) < _MOST_SHARES:
            self.shares[institution] = (made_for, shares)


def accept(content: RecordDict, site: Site, client: Client) -> RecordDict:
    """Agree to a run: policy, base model and data are checked, and the ledger allots the plan's steps."""
    ask = Ask.from_content(content)
    run = _agreed_run(ask)
    _acknowledge(ask, site)
    if run.study.name in site.config.policy.studies and (waits := _waits(run, site)):
        site.report(PolicyError(waits))
        return waiting()  # whatever the policy says of the run: no limit can be searched for
    cap = _agree(run, site)
    _shares(run, site, client, joining=True)
    site.ledger.open_study(run.study.name, _plan(run, site), cap)
    institution = site.config.institution.name
    return Acceptance(institution, site.config.dataset.declared_units, site.identity.public_hex()).content()


def answer_update(content: RecordDict, site: Site, client: Client) -> RecordDict:
    """Train one round."""
    ask = Ask.from_content(content)
    run = _agreed_run(ask)

    def compute(model: WarmModel, shares: Shares, received: State) -> State:
        plan = _plan(run, site)
        work = LocalWork(plan, received, run.local.steps, run.local.learning_rate)
        return train(work, model, shares.training, client.coins())

    return _answer(ask, run, site, client, ("update", run.local.steps, 0), compute)


def answer_validation(content: RecordDict, site: Site, client: Client) -> RecordDict:
    """Give noised counts on the held-out share, if the policy shares them and the round is one that has them."""
    ask = Ask.from_content(content)
    run = _agreed_run(ask)
    plan, every = _plan(run, site), run.evaluation.validation_every
    if site.config.policy.share_metrics != "private" or not isinstance(plan, PrivacyPlan):
        raise PolicyError("validation counts are refused: policy.share_metrics is 'none', or the run has no privacy")
    if every is None or ask.round % every:
        raise PolicyError(f"validation counts are refused: round {ask.round} is not one of the plan's")

    def compute(model: WarmModel, shares: Shares, received: State) -> State:
        return validate(plan, model, received, shares.validation, client.coins())

    return _answer(ask, run, site, client, ("validation", 0, 1), compute)


def _answer(
    ask: Ask,
    run: RunConfig,
    site: Site,
    client: Client,
    price: tuple[What, int, int],
    compute: Callable[[WarmModel, Shares, State], State],
) -> RecordDict:
    """One answer through the release protocol; ``price`` is what it is, its steps and its validation releases."""
    if client.now() > ask.deadline_unix:
        raise PolicyError(f"round {ask.round} is over: its deadline has passed")
    _acknowledge(ask, site)
    what, steps, releases = price
    ready: list[tuple[WarmModel, Shares, State]] = []

    def agree() -> Cap:
        if not 1 <= ask.round <= run.federation.num_rounds:
            raise PolicyError(f"round {ask.round} is refused: the run has {run.federation.num_rounds}")
        cap = _agree(run, site)
        model, shares = _shares(run, site, client, joining=False)
        ready.append((model, shares, load_state(ask.adapter, schema(model.module), RECEIVED_NORM_BOUND)))
        site.ledger.open_study(run.study.name, _plan(run, site), cap)
        return cap

    def make(reservation: Reservation) -> bytes:
        try:
            payload = dump_state(compute(*ready[0]))
        except BaseException:
            forget_models()  # it may hold activations of a step that an error ended
            raise
        name, base = site.config.institution.name, str(run.model.sha256)
        envelope = seal_envelope(ask, what, (name, base), payload, reservation.hash)
        return Update(envelope, site.identity.sign(envelope.text()), payload).to_bytes()

    key = Key(ask.study, ask.lineage, what, ask.round)
    coins = "os" if client.coins == Coins.fresh else "test"
    request = Request(key, steps, releases, ask.input_sha256, ask.plan_sha256, coins)
    return Update.from_bytes(release(request, site.ledger, site.outbox, agree, make)).content()


def _agreed_run(ask: Ask) -> RunConfig:
    """The run of an ask; `PolicyError` where its hash would not be the one that people agreed to."""
    run = RunConfig.model_validate_json(ask.run_json)
    if run.canonical_json() != ask.run_json:
        raise PolicyError("the run is not in canonical form, so its hash is not the one to agree to")
    if run.study.name != ask.study:
        raise PolicyError(f"the ask is for study {ask.study!r}, its run is of study {run.study.name!r}")
    return run


def _plan(run: RunConfig, site: Site) -> Plan:
    return make_plan(run, site.config.dataset.declared_units)


def _agree(run: RunConfig, site: Site) -> Cap:
    """The cap in force, if the policy allows the run; a run that only waits for a person is kept for that person."""
    policy = site.config.policy
    reasons = refusals(PolicyRequest(run, _plan(run, site)), site.config.dataset, policy)
    if reasons:
        raise PolicyError("; ".join(reasons))
    waits = _waits(run, site)
    if waits:
        raise PolicyError(waits)
    return cap_of(policy)


def _waits(run: RunConfig, site: Site) -> str | None:
    """What a person has to do first; the run is kept for that person."""
    waits = waits_for_approval(run, site.config.policy, site.ledger.account().approved)
    if waits and site.offers:
        keep_offer(site.offers, run)
    return waits


def keep_adapter(content: RecordDict, site: Site, client: Client) -> RecordDict:
    """Keep a finished adapter in ``models/``, for a run that this institution took part in."""
    finished = Finished.from_content(content)
    _acknowledge(finished, site)
    if finished.study not in site.ledger.account().studies or site.models is None:
        raise PolicyError(f"an adapter of study {finished.study!r} came, which is not open here")
    folder = site.models / finished.study / finished.lineage[:12]
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in finished.files.items():
        replace_durably(folder / name, data)
    hashes = {name: sha256(data) for name, data in finished.files.items()}
    replace_durably(folder / "sha256.json", json.dumps(hashes, indent=1).encode())
    return RecordDict()


def _acknowledge(shown: Ask | Finished, site: Site) -> None:
    """ACK what the server shows to have: an envelope with our own signature. Anything else it may show is ignored."""
    if not shown.receipt:
        return
    try:
        envelope, signature = read_receipt(shown.receipt)
    except MessageError:
        return
    if site.identity.signed_by_me(envelope.text(), signature):
        acknowledge(envelope.ledger_head, site.ledger, site.outbox)


def _shares(run: RunConfig, site: Site, client: Client, *, joining: bool) -> tuple[WarmModel, Shares]:
    """The model and the site's shares, encoded for this run."""
    model = warm_model(run, site.config.compute.device)
    # By the hash of the run: units encoded for other labels would make an answer depend on which classes are present.
    # And by the dataset: site.toml may name other people since, and their ledger is the one that is charged.
    name, made_for = site.config.institution.name, run.sha256() + site.config.dataset.model_dump_json()
    known, shares = client.shares.get(name, ("", None))
    if joining or shares is None or known != made_for:
        shares = prepare(site, model, joining=joining)
        client.keep(name, made_for, shares)
    return model, shares
