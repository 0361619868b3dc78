"""A run whose institutions share the noise of a secure sum: its rules, and the settings that follow from them."""

import math
import re
from dataclasses import replace
from typing import Protocol

from confide.common.config.accountant import Accountant
from confide.common.config.sections import SECURE_SUM, FederationSection, LocalSection, PrivacySection, StudySection
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.sharing import Sharing

MAX_INSTITUTIONS = 200  # a sum of 100 costs an institution 30 ms of masks, all pairs of them
MAX_IF_BROKEN = 100.0
_DEFAULT_COLLUDING = 1
_KEY = re.compile("[0-9a-f]{64}")


class Sections(Protocol):
    """The sections of a run that a secure sum is about."""

    @property
    def study(self) -> StudySection:
        """Names and keys of the members."""

    @property
    def federation(self) -> FederationSection:
        """The fewest members."""

    @property
    def local(self) -> LocalSection:
        """The steps of a round."""

    @property
    def privacy(self) -> PrivacySection:
        """The noise, and who may collude."""


def require_sum_fits(run: Sections) -> None:
    """Check the settings of a secure sum against each other; `ValueError` names setting, value and rule.

    A run.toml may leave its institutions out: a simulation takes their names from its data, a server takes all that it
    has approved. A locked run has them.
    """
    privacy = run.privacy
    if run.federation.aggregation != SECURE_SUM:
        only = ("max_colluding", "target_epsilon_if_broken", "grid_bits", "share_variance")
        set_ones = [f"privacy.{name}" for name in only if getattr(privacy, name) is not None]
        if set_ones + (["study.keys"] if run.study.keys else []):
            raise ValueError(
                f"{(set_ones or ['study.keys'])[0]} is set, but federation.aggregation is not {SECURE_SUM!r}"
            )
        return
    if run.local.steps != 1:
        raise ValueError(f"aggregation = {SECURE_SUM!r} takes one step in a round, local.steps = {run.local.steps}")
    if privacy.unit == "none":
        raise ValueError(f"aggregation = {SECURE_SUM!r} shares noise, but privacy.unit = 'none' has none")
    if run.study.institutions or run.study.keys:
        _require_members(run)


def _require_members(run: Sections) -> None:
    names, keys = run.study.institutions, run.study.keys
    num, least, most_colluding = len(names), run.federation.min_clients, colluding(run.privacy)
    if not 2 <= num <= MAX_INSTITUTIONS or len(set(names)) < num:
        raise ValueError(
            f"study.institutions has {num} names, {len(set(names))} of them different: a secure sum needs 2 to "
            f"{MAX_INSTITUTIONS} different names"
        )
    if wrong := [name for name in names if not (name.isprintable() and 1 <= len(name) <= 64)]:
        raise ValueError(f"study.institutions: {wrong[0]!r} must be 1 to 64 printable characters")
    if least > num:
        raise ValueError(f"federation.min_clients = {least} must be at most the {num} names in study.institutions")
    if 2 * least <= num + most_colluding or least - most_colluding < 2:
        fewest = max((num + most_colluding) // 2 + 1, most_colluding + 2)
        raise ValueError(
            f"federation.min_clients = {least} is too low for {num} institutions, of which privacy.max_colluding = "
            f"{most_colluding} may collude: two sums of one round must share an honest member, and each needs two; it "
            f"must be at least {fewest}"
        )
    if keys and (set(keys) != set(names) or len(set(keys.values())) < num):
        raise ValueError("study.keys must have one key of its own for each name in study.institutions, and no other")
    if wrong := [name for name, key in keys.items() if not _KEY.fullmatch(key)]:
        raise ValueError(f"study.keys.{wrong[0]} must be 64 lower-case hex digits")


def colluding(privacy: PrivacySection) -> int:
    """Return how many members may collude: 1 unless the run says otherwise."""
    return _DEFAULT_COLLUDING if privacy.max_colluding is None else privacy.max_colluding


def sharing_of(run: Sections) -> Sharing | None:
    """Return the sharing of a locked run's plan; None where every institution adds all of the noise."""
    bits, variance = run.privacy.grid_bits, run.privacy.share_variance
    if run.federation.aggregation != SECURE_SUM:
        return None
    if bits is None or variance is None:
        raise ValueError("privacy.share_variance is not fixed: the run is not locked")
    return Sharing(run.federation.min_clients, colluding(run.privacy), bits, variance)


def share_noise(run: Sections, plan: PrivacyPlan, privacy: PrivacySection, by: Accountant) -> PrivacySection:
    """Return `[privacy]` with the share of each institution fixed.

    Args:
        run: names the institutions.
        plan: has the noise of the sum, and is not shared yet.
        privacy: the section so far; a share that is fixed already stays.
        by: computes noise and epsilon.

    Raises:
        ValueError: the institutions are not named, the shares do not fit, or one share alone protects too little.
    """
    _require_members(run)
    least, allowed, num = run.federation.min_clients, colluding(privacy), len(run.study.institutions)
    if privacy.share_variance is None or privacy.grid_bits is None:
        target = privacy.target_epsilon_if_broken
        floor = by.calibrate(plan, target).noise_multiplier if target else 0.0
        shared = plan.shared(least, allowed, plan.expected_batch_size * num, floor)
    else:
        shared = replace(plan, sharing=Sharing(least, allowed, privacy.grid_bits, privacy.share_variance))
    _require_protection(shared, num, by)
    return privacy.model_copy(update=_fixed(shared, plan, privacy, by))


def _fixed(shared: PrivacyPlan, plan: PrivacyPlan, privacy: PrivacySection, by: Accountant) -> dict[str, object]:
    """Return the values of `[privacy]` that a shared plan fixes; a floor under each share lowers epsilon of the sum."""
    if shared.sharing is None:
        raise ValueError("the plan is not shared")
    risen = shared.noise_multiplier != plan.noise_multiplier
    return {
        "noise_multiplier": shared.noise_multiplier,
        "target_epsilon": by.epsilon(shared) if risen else privacy.target_epsilon,
        "max_colluding": shared.sharing.max_colluding,
        "grid_bits": shared.sharing.grid_bits,
        "share_variance": shared.sharing.share_variance,
    }


def _require_protection(shared: PrivacyPlan, num: int, by: Accountant) -> None:
    """Check that the noise of all institutions fits into 32 bits, and that one share alone protects at all."""
    if shared.sharing is not None and 8 * math.sqrt(num * shared.sharing.share_variance) > 2**30:
        raise ValueError(f"the noise of {num} institutions does not fit into 32 bits")
    from confide.common.privacy.least import least_epsilon  # the import takes a second

    alone = shared.if_broken
    least = least_epsilon(alone)
    if least > MAX_IF_BROKEN or by.epsilon(alone) > MAX_IF_BROKEN:
        raise ValueError(
            f"if the secure sum is broken, one share alone has an epsilon above {MAX_IF_BROKEN:g}, which no policy "
            "allows; set privacy.target_epsilon_if_broken, 8 to 20 is advised"
        )
