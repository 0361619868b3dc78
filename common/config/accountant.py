"""The source of noise and epsilon when a run is locked: the audited accounting, unless a caller names another."""

from typing import Protocol

from confide.common.privacy.plan import PrivacyPlan


class Accountant(Protocol):
    """Noise and epsilon of whole plans."""

    def calibrate(self, plan: PrivacyPlan, target_epsilon: float) -> PrivacyPlan:
        """Return a copy of a plan with the least noise that keeps a target."""

    def epsilon(self, plan: PrivacyPlan) -> float:
        """Return epsilon of a whole plan."""


def computing() -> Accountant:
    """Return `common.privacy.accounting`, imported only when needed: the import alone takes a second."""
    from confide.common.privacy import accounting

    return accounting
