"""The answer to an offer: whether this institution takes part in a run."""

from flwr.app import RecordDict

from confide.client.answers.agreement import acknowledge_receipt, agree, agreed_run, is_waiting, plan_of
from confide.client.answers.proposed_runs import keep_offer, note_joined
from confide.client.site.installation import Institution, Site
from confide.client.training.shares import ClientProcess, shares_of
from confide.common.protocol.answers import Acceptance, waiting
from confide.common.protocol.asks import Ask


def accept(content: RecordDict, site: Site, client: ClientProcess) -> RecordDict:
    """Agree to a run: policy, base model and data are checked, and the ledger allots the plan's steps."""
    ask = Ask.from_content(content)
    run = agreed_run(ask)
    acknowledge_receipt(ask, site)
    if is_waiting(run, site):
        return waiting()
    cap = agree(run, site, ask.lineage)
    if site.offers:
        keep_offer(site.offers, run)  # `doctor` looks at its labels and its base model
    shares_of(run, site, client, joining=True)
    site.ledger.open_study(run.study.name, plan_of(run, site), cap)
    if site.offers:
        note_joined(site.offers, run, site.config.dataset)
    return acceptance(site).content()


def acceptance(site: Institution) -> Acceptance:
    """Return what an institution says of itself when it takes part."""
    declared_units, key = site.config.dataset.declared_units, site.identity.public_hex()
    return Acceptance(site.config.institution.name, declared_units, key)
