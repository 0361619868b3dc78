"""Noise multipliers and epsilons that a study designer has computed before, in the user's cache folder.

`confide plan` shows remembered values, and trains nothing. `confide simulate` takes a noise multiplier from here only
after it has computed that the noise keeps the target. Nothing else reads this file: an institution's policy and ledger,
a server and `confide verify` compute everything themselves. So an edited file decides nothing for them.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from confide.common.durable import replace_durably
from confide.common.privacy.plan import PrivacyPlan

_KEPT = 2000  # of the newest values; a few hundred bytes each
_COMPUTED_BY = ("dp-accounting", "scipy", "numpy", "confide")


class Remembered:
    """The functions of `common.privacy.accounting` for a whole plan, with remembered values if there are any."""

    def calibrate(self, plan: PrivacyPlan, target_epsilon: float) -> PrivacyPlan:
        """Return the plan with the least noise for a target, as accounting finds it."""
        asked = replace(_neutral(plan), noise_multiplier=1.0)

        def compute() -> float:
            return float(_accounting().calibrate(asked, target_epsilon).noise_multiplier)

        return replace(plan, noise_multiplier=recall(["noise", asdict(asked), target_epsilon], compute), sharing=None)

    def epsilon(self, plan: PrivacyPlan) -> float:
        """Return epsilon by PLD."""
        asked = _neutral(plan)
        return recall(["epsilon", asdict(asked)], lambda: _accounting().epsilon(asked))

    def epsilon_rdp(self, plan: PrivacyPlan) -> float:
        """Return epsilon by Renyi accounting."""
        asked = _neutral(plan)
        return recall(["rdp", asdict(asked)], lambda: _accounting().epsilon_rdp(asked))

    def signal_to_noise_share(self, plan: PrivacyPlan) -> float:
        """Return the signal-to-noise ratio, as a share of the best possible at this epsilon."""
        asked = _neutral(plan)
        return recall(["signal", asdict(asked)], lambda: _accounting().signal_to_noise_share(asked))

    def attack_true_positive_rate(self, plan: PrivacyPlan, false_positive_rate: float) -> float:
        """Return a bound on a membership attack's true-positive rate, rounded up."""
        asked = _neutral(plan)

        def compute() -> float:
            accounting = _accounting()
            return float(accounting.round_up(accounting.attack_true_positive_rate(asked, false_positive_rate)))

        return recall(["attack", asdict(asked), false_positive_rate], compute)


def _neutral(plan: PrivacyPlan) -> PrivacyPlan:
    """Make fields equal that do not enter the account, so that studies of one shape share their values."""
    return replace(
        plan, unit="record", declared_units=1, clip_norm=1.0, clipping="automatic", head_weight=1.0, sharing=None
    )


def _accounting() -> Any:
    """Return the accounting module, imported only to compute something: the import alone takes a second."""
    from confide.common.privacy import accounting

    return accounting


class Checked(Remembered):
    """The same for a run that trains: memory saves the search for the noise, and nothing else."""

    def calibrate(self, plan: PrivacyPlan, target_epsilon: float) -> PrivacyPlan:
        """Return the plan with the least noise for a target; computed anew if the remembered noise does not keep it."""
        accounting = _accounting()
        found = super().calibrate(plan, target_epsilon)
        if accounting.epsilon(found) <= target_epsilon:
            return found
        calibrated: PrivacyPlan = accounting.calibrate(plan, target_epsilon)
        return calibrated

    def epsilon(self, plan: PrivacyPlan) -> float:
        """Compute epsilon, never from memory."""
        return float(_accounting().epsilon(plan))


def recall(what: Any, compute: Callable[[], float]) -> float:
    """Return a finite number above 0 that the same code computed before from exactly this, or compute it now."""
    key = hashlib.sha256(json.dumps([what, _computed_by()], sort_keys=True).encode()).hexdigest()
    known = _read().get(key)
    if isinstance(known, (int, float)) and not isinstance(known, bool) and math.isfinite(known) and known > 0:
        return known
    value = compute()
    if math.isfinite(value):
        _keep(key, value)
    return value


@lru_cache(maxsize=1)
def _computed_by() -> list[str]:
    source = files("confide.common.privacy").joinpath("accounting.py").read_bytes()
    return [f"{name} {version(name)}" for name in _COMPUTED_BY] + [hashlib.sha256(source).hexdigest()]


def _path() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "confide" / "accounting.json"


def _read() -> dict[str, Any]:
    """Return values by key; empty if there is no file, or it is damaged."""
    try:
        return dict(json.loads(_path().read_bytes()))
    except (OSError, ValueError, TypeError, RuntimeError):
        return {}


def _keep(key: str, value: float) -> None:
    """Add a value; a folder that cannot be written keeps nothing, and is no error."""
    with contextlib.suppress(OSError, RuntimeError):
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        newest = dict([*_read().items(), (key, value)][-_KEPT:])
        replace_durably(path, json.dumps(newest, indent=0).encode(), 0o600)
