"""The fields of a ledger's rows and of a run directory's: a type and a range, or a pattern, for each."""

import re
import reprlib
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
Row = dict[str, Any]

# The rule of a field, the same in every row: a type and its range, or a pattern that fits the whole text. In these
# ranges the accountants can be trusted, and end soon. NaN is in no range.
_Rule = tuple[type, Any, Any] | str
_HASH, _COUNT, _EPSILON = "[0-9a-f]{64}", (int, 0, 10**6), (float, 0.0, 1e6)
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("study", "dataset", "lineage", "institution", "status", "coins", "accountant"), "(?s).{1,256}"),
    **dict.fromkeys(("hash", "previous", "sha256", "input_sha256", "run_sha256", "people", "secret_commitment"), _HASH),
    **dict.fromkeys(("statement_sha256", "base_sha256", "mask_key", "ledger_head", "update_key"), _HASH),
    **dict.fromkeys(("returns", "simulated"), (bool, False, True)),
    **dict.fromkeys(("number", "reserve", "declared_units", "max_records_per_group"), (int, 1, 10**15)),
    **dict.fromkeys(("time", "bytes", "round"), (int, 0, 10**15)),
    **dict.fromkeys(("steps", "releases", "num_rounds", "num_steps", "num_releases", "validation_releases"), _COUNT),
    "validation_every": _COUNT,
    **dict.fromkeys(("noise_multiplier", "validation_noise_multiplier"), (float, 0.05, 1e4)),
    **dict.fromkeys(("clip_norm", "head_weight"), (float, 1e-6, 1e6)),
    **dict.fromkeys(("delta", "max_delta", "target_delta"), (float, 1e-15, 0.5)),
    **dict.fromkeys(("epsilon", "epsilon_of_the_whole_plan", "max_epsilon", "epsilon_cap"), _EPSILON),
    **dict.fromkeys(("max_epsilon_if_broken", "epsilon_cap_if_broken"), _EPSILON),
    **dict.fromkeys(("epsilon_if_broken", "epsilon_if_broken_of_the_whole_plan"), _EPSILON),
    **{"members": (int, 2, 10**4), "min_members": (int, 2, 10**4), "max_colluding": (int, 0, 10**4)},
    **{"grid_bits": (int, 10, 19), "share_variance": (int, 64**2, 2**60), "share_multiplier": (float, 0.001, 1e4)},
    **{
        "sampling_probability": (float, 1e-4, 1.0),
        "order": (int, 2, 256),
        "order_if_broken": (int, 2, 256),
        "attempt": (int, 1, 2),
    },
    **{"unit": "record|group", "what": "update|validation", "clipping": "automatic|abadi", "salt": "[0-9a-f]{32}"},
    **dict.fromkeys(("epsilon_spent", "epsilon_spent_if_broken"), (float, 0.0, float("inf"))),
    "adjacency": "add or remove .*",
}
PLAN = (
    "unit sampling_probability num_steps declared_units clip_norm clipping noise_multiplier target_delta head_weight "
    "validation_releases validation_noise_multiplier sharing?"
)


def show(value: object) -> str:
    """Return a value as it is printed: short, and without control characters."""
    return _SHORT.repr(value)


def faults(value: Any, names: str, *, only: bool = True) -> list[str]:
    """Return the faults of an object that must have these fields (or may: "name?"), and with ``only`` no others."""
    if not isinstance(value, dict):
        return [f"{show(value)} must be an object"]
    fields = [name.rstrip("?") for name in names.split() if name[-1] != "?" or name[:-1] in value]
    wrong = [f"{name} is missing" for name in fields if name not in value]
    wrong += [f"{show(name)} is unknown: nobody can say what it means" for name in value if only and name not in fields]
    broken = [(n, _broken(value[n], _RULES[n])) for n in fields if n in value and n in _RULES]
    return wrong + [f"{name} = {show(value[name])} {rule}" for name, rule in broken if rule]


def _broken(value: Any, rule: _Rule) -> str:
    """Return the rule that a value breaks, in words; "" if it keeps the rule."""
    if isinstance(rule, str):
        return "" if isinstance(value, str) and re.fullmatch(rule, value) else f"must be text like {rule}"
    kind, low, high = rule
    fits = type(value) in (kind, int if kind is float else kind) and low <= value <= high
    return "" if fits else f"must be {kind.__name__} from {low} to {high}"
