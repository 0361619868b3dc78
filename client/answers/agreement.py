"""The steps before an answer: it must be the run that was agreed to, and the institution must agree."""

from confide.client.answers.proposed_runs import is_declined, keep_offer
from confide.client.privacy.decision import Decision, decide
from confide.client.privacy.policy import RunRequest, waits_for_approval
from confide.client.privacy.release import acknowledge
from confide.client.site.installation import Institution
from confide.client.training.shares import ClientProcess
from confide.common.aloud import hash_start
from confide.common.config.run import RunConfig, make_plan
from confide.common.errors import PolicyError
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import Plan
from confide.common.protocol.answers import Envelope
from confide.common.protocol.asks import Ask, Finished
from confide.common.protocol.secure_sum import REHEARSAL, SumEnvelope
from confide.common.protocol.signed import read_receipt
from confide.common.protocol.sum_messages import SumAsk
from confide.common.protocol.wire import MessageError


def agreed_run(ask: Ask | SumAsk) -> RunConfig:
    """The run of an ask; `PolicyError` where its hash would not be the one that people agreed to."""
    run = RunConfig.model_validate_json(ask.run_json)
    if run.canonical_json() != ask.run_json:
        raise PolicyError("the run is not in canonical form, so its hash is not the one to agree to")
    if run.study.name != ask.study:
        raise PolicyError(f"the ask is for study {ask.study!r}, its run is of study {run.study.name!r}")
    return run


def require_in_time(ask: Ask | SumAsk, client: ClientProcess) -> None:
    """`PolicyError` once the deadline of a round has passed."""
    if client.now() > ask.deadline_unix:
        raise PolicyError(f"round {ask.round} is over: its deadline has passed")


def plan_of(run: RunConfig, site: Institution) -> Plan:
    """The plan of a run at this institution."""
    return make_plan(run, site.config.dataset.declared_units)


def names_of(run: RunConfig, site: Institution) -> tuple[str, str]:
    """Return the two names that an envelope states: the institution, and the hash of its base model."""
    return site.config.institution.name, str(run.model.sha256)


def decision_on(run: RunConfig, site: Institution, lineage: str | None = None) -> Decision:
    """Return this institution's decision about a run; nothing is written."""
    request, own_key = RunRequest(run, plan_of(run, site)), site.identity.public_hex()
    return decide(request, site.config, own_key, site.ledger.account(), lineage)


def agree(run: RunConfig, site: Institution, lineage: str) -> Cap:
    """Return the cap in force if the run is allowed; keep a run that only waits for a person, for that person."""
    _require_not_declined(run, site)
    decision = decision_on(run, site, lineage)
    if decision.waits and not decision.refusals:
        _keep(run, site)
    return decision.require()


def is_waiting(run: RunConfig, site: Institution) -> bool:
    """Return whether a person has to approve the run first, whatever the policy says of it.

    So a server cannot search for a limit. A study of a name that the policy does not hold waits for nobody.
    `PolicyError` if a person declined the run.
    """
    policy = site.config.policy
    waits = waits_for_approval(run, policy, site.ledger.account().approved)
    if run.study.name not in policy.studies or not waits:
        return False
    _keep(run, site)
    _require_not_declined(run, site)
    site.report(PolicyError(waits))
    return True


def _require_not_declined(run: RunConfig, site: Institution) -> None:
    """`PolicyError` if a person declined the run and nobody approved it. A no counts even where no yes is needed."""
    name, sha256 = run.study.name, run.sha256()
    if site.offers and is_declined(site.offers, run) and (name, sha256) not in site.ledger.account().approved:
        _keep(run, site)  # for whoever changes this no
        raise PolicyError(f"run {hash_start(sha256)} was declined here: `confide client approve {name}`")


def _keep(run: RunConfig, site: Institution) -> None:
    if site.offers:
        keep_offer(site.offers, run)


def acknowledge_receipt(shown: Ask | SumAsk | Finished, site: Institution) -> None:
    """ACK what the server shows to have: an envelope with our own signature. Anything else it may show is ignored."""
    for kind in (Envelope, SumEnvelope):
        try:
            envelope, signature = read_receipt(kind, shown.receipt)
        except MessageError:
            continue
        if envelope.what != REHEARSAL and site.identity.signed_by_me(envelope.text(), signature):
            acknowledge(envelope.ledger_head, site.ledger, site.outbox, is_sum=kind is SumEnvelope)
