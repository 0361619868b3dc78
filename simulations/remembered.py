"""What who designs a study has computed before: noise multipliers and epsilons, in the user's cache folder.

`confide plan` shows what is remembered, and trains nobody. `confide simulate` takes a noise multiplier from here only
after it has computed that it keeps the target. Nobody else asks: an institution's policy and ledger, a server and
`confide verify` compute everything themselves, so that a file which somebody has edited decides nothing for them.
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
    """The functions of `common.privacy.accounting` for a whole plan, from memory where that has them."""

    def calibrate(self, plan: PrivacyPlan, target_epsilon: float) -> PrivacyPlan:
        """The least noise for a target, as accounting finds it."""
        asked = replace(_neutral(plan), noise_multiplier=1.0)

        def compute() -> float:
            return float(_accounting().calibrate(asked, target_epsilon).noise_multiplier)

        return replace(plan, noise_multiplier=recall(["noise", asdict(asked), target_epsilon], compute))

    def epsilon(self, plan: PrivacyPlan) -> float:
        """By PLD."""
        asked = _neutral(plan)
        return recall(["epsilon", asdict(asked)], lambda: _accounting().epsilon(asked))

    def epsilon_rdp(self, plan: PrivacyPlan) -> float:
        """By Renyi accounting."""
        asked = _neutral(plan)
        return recall(["rdp", asdict(asked)], lambda: _accounting().epsilon_rdp(asked))

    def signal_to_noise_share(self, plan: PrivacyPlan) -> float:
        """Of the best possible at this epsilon."""
        asked = _neutral(plan)
        return recall(["signal", asdict(asked)], lambda: _accounting().signal_to_noise_share(asked))

    def attack_true_positive_rate(self, plan: PrivacyPlan, false_positive_rate: float) -> float:
        """Bound on a membership attack's, rounded up."""
        asked = _neutral(plan)

        def compute() -> float:
            accounting = _accounting()
            return float(accounting.round_up(accounting.attack_true_positive_rate(asked, false_positive_rate)))

        return recall(["attack", asdict(asked), false_positive_rate], compute)


def _neutral(plan: PrivacyPlan) -> PrivacyPlan:
    """What does not enter the account is made equal, so that studies of one shape share their values."""
    return replace(plan, unit="record", declared_units=1, clip_norm=1.0, clipping="automatic", head_weight=1.0)


def _accounting() -> Any:
    """Imported where something is to be computed: that alone takes a second."""
    from confide.common.privacy import accounting

    return accounting


class Checked(Remembered):
    """The same for a run that trains: what is remembered saves the search for the noise, and nothing else."""

    def calibrate(self, plan: PrivacyPlan, target_epsilon: float) -> PrivacyPlan:
        """The least noise for a target; computed anew where what is remembered would not keep it."""
        accounting = _accounting()
        found = super().calibrate(plan, target_epsilon)
        if accounting.epsilon(found) <= target_epsilon:
            return found
        calibrated: PrivacyPlan = accounting.calibrate(plan, target_epsilon)
        return calibrated

    def epsilon(self, plan: PrivacyPlan) -> float:
        """Computed."""
        return float(_accounting().epsilon(plan))


def recall(what: Any, compute: Callable[[], float]) -> float:
    """A finite number above 0 that was computed before from exactly this by the same code, or is now."""
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
    """Values by key; empty where there is no file, or one that is damaged."""
    try:
        return dict(json.loads(_path().read_bytes()))
    except (OSError, ValueError, TypeError, RuntimeError):
        return {}


def _keep(key: str, value: float) -> None:
    """Add a value; a folder that cannot be written keeps nothing, and stops nobody."""
    with contextlib.suppress(OSError, RuntimeError):
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        newest = dict([*_read().items(), (key, value)][-_KEPT:])
        replace_durably(path, json.dumps(newest, indent=0).encode(), 0o600)
