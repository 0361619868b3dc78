"""The one decision about a run: `client check` and `approve` print it, rehearsals, offers and rounds obey it."""

from collections.abc import Mapping
from dataclasses import dataclass

from confide.client.config import SiteConfig
from confide.client.privacy.account import Account
from confide.client.privacy.policy import RunRequest, cap_of, refusals, waits_for_approval
from confide.client.privacy.rules import may_open, require_steps_left
from confide.common.config.sections import SECURE_SUM
from confide.common.errors import BudgetError, PolicyError
from confide.common.privacy.filter import Cap
from confide.common.protocol.enrolment import partner_fingerprint, same_fingerprint


@dataclass(frozen=True)
class Decision:
    """Everything that an institution says to a run, of which a server hears only yes or no.

    Attributes:
        cap: the cap in force.
        refusals: every reason of the policy and of the ledger's rules.
        budget: the reason why the budget does not suffice.
        waits: the step that a person still has to take.
    """

    cap: Cap
    refusals: tuple[str, ...]
    budget: str | None
    waits: str | None

    def require(self) -> Cap:
        """Return the cap of a run that is allowed.

        Raises:
            PolicyError: it is refused, or waits for a person.
            BudgetError: the budget does not suffice.
        """
        if self.refusals:
            raise PolicyError("; ".join(self.refusals))
        if self.waits:
            raise PolicyError(self.waits)
        if self.budget:
            raise BudgetError(self.budget)
        return self.cap


def decide(
    request: RunRequest, config: SiteConfig, own_key: str, account: Account, lineage: str | None = None
) -> Decision:
    """Decide about a run: pure, so that a command cannot say anything else than a round does.

    Args:
        request: the locked run and its plan at this institution.
        config: site.toml.
        own_key: this institution's update key, hex.
        account: of the dataset's ledger; one without rows has nothing against a run.
        lineage: of a run that goes on, whose sealed answers are sent again even if every step is spent.
    """
    name, policy, budget = request.run.study.name, config.policy, None
    reasons = refusals(request, config.dataset, policy)
    if request.run.federation.aggregation == SECURE_SUM:
        reasons += partner_problems(request.run.study.keys, config.institution.name, own_key, config.partners)
    if account.number and not reasons:
        try:
            may_open(account, name, request.plan, cap_of(policy))
            require_steps_left(account, name, lineage)
        except BudgetError as error:
            budget = str(error)
        except PolicyError as error:
            reasons = [str(error)]
    waits = waits_for_approval(request.run, policy, account.approved)
    return Decision(cap_of(policy), tuple(reasons), budget, waits)


def partner_problems(keys: Mapping[str, str], own_name: str, own_key: str, partners: Mapping[str, str]) -> list[str]:
    """Return every reason why the institutions of a run are not the partners of this one.

    Args:
        keys: update key by institution, from the locked run.
        own_name: of this institution.
        own_key: its update key, hex.
        partners: fingerprint by institution, `[partners]` of site.toml.
    """
    problems = []
    if keys.get(own_name) != own_key:
        listed = "is not listed" if own_name not in keys else f"is listed with the key {keys[own_name]}"
        problems.append(f"study.keys: {own_name!r} {listed}, must be listed with this institution's key, {own_key}")
    for name, key in keys.items():
        fingerprint = partner_fingerprint(key)
        if name == own_name or same_fingerprint(partners.get(name, ""), fingerprint):
            continue
        known = f"partners.{name} = {partners[name]!r}" if name in partners else "is not in [partners]"
        problems.append(
            f"study.keys: {name!r} {known}, its key has the fingerprint {fingerprint}; compare it by telephone with "
            "that institution, then write it into [partners]"
        )
    return problems
