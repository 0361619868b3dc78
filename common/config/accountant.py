"""What computes noise and epsilon for a run that is locked: the audited accounting, unless a caller names another."""

from typing import Protocol

from confide.common.privacy.plan import PrivacyPlan


class Accountant(Protocol):
    """Noise and epsilon of whole plans."""

    def calibrate(self, plan: PrivacyPlan, target_epsilon: float) -> PrivacyPlan:
        """A copy of a plan with the least noise that keeps a target."""

    def epsilon(self, plan: PrivacyPlan) -> float:
        """Of a whole plan."""


def computing() -> Accountant:
    """`common.privacy.accounting`, which is imported where it is needed: that alone takes a second."""
    from confide.common.privacy import accounting

    return accounting
