"""The conditions for opening a study, charging a round, letting a share leave: pure, an account in, an error out."""

from collections.abc import Callable, Sequence

from confide.client.privacy.account import Account, AnswerKey, StudyAllotment
from confide.common.errors import BudgetError, PolicyError
from confide.common.privacy.filter import Cap, Charge, accounts, filter_epsilon, spent
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
        _require(spent, [*account.allotted(), charge], cap, account, f"study {name!r}")
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
    study, attempt = _require_open(account, key.study), len(account.answers.get(key, [])) + 1
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
    after = {**account.reserved(), key.study: Charge(study.plan, steps, releases)}
    _require_still_within(account, key, after, cap)
    return attempt


def may_release(account: Account, key: AnswerKey, cap: Cap) -> None:
    """Check that a share which is charged and sealed may still leave.

    Raises:
        PolicyError: its study is not open any more, or its institutions share no noise.
        BudgetError: the cap in force does not allow the spend so far: it was lowered since the charge.
    """
    study = _require_open(account, key.study)
    if study.plan is None or study.plan.sharing is None:
        raise PolicyError(f"the institutions of study {key.study!r} share no noise: there is no share to release")
    _require_still_within(account, key, account.reserved(), cap)


def require_unreleased(account: Account, number: int, members: int, others: Sequence[Account]) -> None:
    """Check that a share is sealed and has enough members, and that no share of its round ever left.

    ``others`` are the accounts of all other datasets of the same key: together they release one share a round.
    `PolicyError` if the share may not leave.
    """
    share = account.reservations[number]
    named, plan = f"round {share.key.round} of study {share.key.study!r}", account.studies[share.key.study].plan
    if share.sealed_sha256 is None:
        raise PolicyError(f"{named}: its share has no SEAL, so it never leaves")
    if plan and plan.sharing and members < plan.sharing.min_members:
        raise PolicyError(f"{named}: {members} members are refused, the plan has {plan.sharing.min_members} at least")
    everything = (item for each in (account, *others) for item in each.reservations.values())
    if any(item.released and item.key == share.key for item in everything):
        raise PolicyError(f"{named}: a share of it was released before, and there is one for ever")


def _require_open(account: Account, name: str) -> StudyAllotment:
    study = account.studies.get(name)
    if study is None or study.closed or account.retired:
        raise PolicyError(f"study {name!r} is not open in the ledger")
    return study


def _require_still_within(account: Account, key: AnswerKey, charges: dict[str, Charge], cap: Cap) -> None:
    """Check charges against a cap that changed; under the cap of the last opening, all allotments fit."""
    if account.opened_under == cap:
        return
    # A study that others may follow must leave the filter intact; one that blocks all others has its own PLD.
    alone = not account.studies[key.study].returns and list(account.studies) == [key.study]
    _require(
        spent if alone else filter_epsilon,
        list(charges.values()),
        cap,
        account,
        f"round {key.round} of study {key.study!r}",
    )


def _require(
    count: Callable[[Sequence[Charge], float, int], float], charges: list[Charge], cap: Cap, account: Account, what: str
) -> None:
    """Check that neither account of these charges passes its cap; the message names the one that would."""
    for broken, (own, of, order) in enumerate(accounts(charges, cap, account.orders)):
        epsilon = count(own, of.max_delta, order)
        if epsilon > of.max_epsilon:
            named = "_if_broken" if broken and cap.max_epsilon_if_broken is not None else ""
            where = "if the shared noise is broken, " if broken else ""
            raise BudgetError(
                f"{what} is refused: with it, {where}epsilon {epsilon} at delta {cap.max_delta:g} would be spent, "
                f"policy.max_epsilon{named} = {of.max_epsilon:g}"
            )
