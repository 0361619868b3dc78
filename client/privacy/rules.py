"""The conditions for opening a study or charging a round: pure, an account in, an error or nothing out."""

from collections.abc import Callable

from confide.client.privacy.account import Account, AnswerKey
from confide.common.errors import BudgetError, PolicyError
from confide.common.privacy.filter import Cap, Charge, admits, filter_epsilon, fits_filter, spent
from confide.common.privacy.plan import Plan, PrivacyPlan

_MAX_ATTEMPTS = 2  # of one round: the first, and one retry after a crash


def require_unit(account: Account, unit: str, max_records_per_group: int) -> None:
    """Check that the unit is the first row's: group privacy does not imply record privacy, nor the other way round."""
    fixed = (account.first["unit"], account.first["max_records_per_group"])
    if fixed != (unit, max_records_per_group):
        raise PolicyError(
            f"dataset.unit and max_records_per_group are {fixed} since the ledger's first row, site.toml says "
            f"{(unit, max_records_per_group)}; put site.toml back"
        )


def may_open(account: Account, name: str, plan: Plan, cap: Cap) -> bool:
    """Return whether a study needs opening: False if it is open with this very plan.

    Raises:
        PolicyError: the ledger is retired, or the study is closed or open with another plan.
        BudgetError: with the earlier allotments, the whole plan does not fit under the cap. No study is opened in
            part: an institution would spend its budget on a run that it must leave.
    """
    known = account.studies.get(name)
    if account.retired:
        raise PolicyError("the ledger is retired: nothing is opened any more")
    if known is not None:
        if known.closed:
            raise PolicyError(f"study {name!r} is closed; a new study needs a new name")
        if known.plan != (plan if isinstance(plan, PrivacyPlan) else None):
            raise PolicyError(
                f"study {name!r} is open with another plan; a changed plan is another study, with its own name"
            )
        return False
    if isinstance(plan, PrivacyPlan):
        if account.infinite:
            raise BudgetError("the dataset was used without privacy before: nothing can be promised any more")
        charge = Charge(plan, plan.num_steps, plan.validation_releases)
        _require(admits, [*account.allotted(), charge], cap, account, f"study {name!r}")
    return True


def require_steps_left(account: Account, name: str, lineage: str | None = None) -> None:
    """Check that an open study can still train.

    A run that already has answers here (its ``lineage``) may always come back: a sealed answer is sent again, free.

    Raises:
        BudgetError: every step is reserved.
    """
    study = account.studies.get(name)
    if study and study.is_spent and (name, lineage) not in {(key.study, key.lineage) for key in account.answers}:
        raise BudgetError(f"all {study.steps} steps of study {name} are spent; a new study needs a new name")


def may_reserve(account: Account, key: AnswerKey, charge: tuple[int, int], cap: Cap) -> int:
    """Return the number of the attempt, 1 or 2.

    Raises:
        PolicyError: the study is not open, or the round had its retry.
        BudgetError: the allotment is used up, or the cap in force does not allow the spend including this round.
    """
    study, attempt = account.studies.get(key.study), len(account.answers.get(key, [])) + 1
    if study is None or study.closed or account.retired:
        raise PolicyError(f"study {key.study!r} is not open in the ledger")
    if attempt > _MAX_ATTEMPTS:
        raise PolicyError(f"round {key.round} of study {key.study!r} had its retry; it is not tried again")
    if study.plan is None:
        return attempt
    steps, releases = study.reserved_steps + charge[0], study.reserved_releases + charge[1]
    if steps > study.steps or releases > study.releases:
        raise BudgetError(
            f"round {key.round} is refused: {study.reserved_steps} of the {study.steps} steps that study "
            f"{key.study!r} has are spent, and {study.reserved_releases} of {study.releases} validation releases"
        )
    if account.opened_under != cap:  # else the allotments fit under it, and the comparison above is enough
        after = {**account.reserved(), key.study: Charge(study.plan, steps, releases)}
        # A study that others may follow must leave the filter intact; one that blocks all others has its own PLD.
        alone = not study.returns and list(account.studies) == [key.study]
        allowed = admits if alone else fits_filter
        _require(allowed, list(after.values()), cap, account, f"round {key.round} of study {key.study!r}")
    return attempt


def _require(
    allowed: Callable[[list[Charge], Cap, int], bool], charges: list[Charge], cap: Cap, account: Account, what: str
) -> None:
    order = account.first["order"]
    if not allowed(charges, cap, order):
        count = filter_epsilon if allowed is fits_filter else spent
        raise BudgetError(
            f"{what} is refused: with it, epsilon {count(charges, cap.max_delta, order)} at delta {cap.max_delta:g} "
            f"would be spent, policy.max_epsilon = {cap.max_epsilon:g}"
        )
