"""The one decision about a run: `client check` and `approve` print it, rehearsals, offers and rounds obey it."""

from dataclasses import dataclass

from confide.client.config import SiteConfig
from confide.client.privacy.account import Account
from confide.client.privacy.policy import RunRequest, cap_of, refusals, waits_for_approval
from confide.client.privacy.rules import may_open, require_steps_left
from confide.client.privacy.sum_members import partner_problems
from confide.common.config.sections import SECURE_SUM
from confide.common.errors import BudgetError, PolicyError
from confide.common.privacy.filter import Cap


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
