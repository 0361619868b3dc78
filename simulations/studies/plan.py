"""`confide plan`: cost and privacy of a run, from public numbers alone."""

import math
import statistics
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from confide.common.config.run import RunConfig, make_plan
from confide.common.config.shared_noise import MAX_IF_BROKEN
from confide.common.methods import is_added
from confide.common.privacy.plan import NoPrivacy, PrivacyPlan
from confide.common.privacy.secure.sharing import Sharing
from confide.common.tensors import Schema
from confide.simulations.studies.remembered import Remembered, recall

if TYPE_CHECKING:
    from confide.client.data.units import UnitTable
    from confide.common.model.warm_model import WarmModel

TABLE = (1.0, 3.0, 8.0)
FALSE_POSITIVE_RATE = 0.01
# Of 72 measured settings the 11 below it kept 83 % or more of what a run without privacy gains over chance; half of the
# 61 above it kept less than 40 % (docs/decisions.md).
MOST_HEAD_NOISE = 0.075
_MAX_LENGTHS = 16  # of the records that are measured


def plan_facts(run: RunConfig, target_epsilon: float | None = None) -> dict[str, Any]:
    """Return the numbers of a locked run, ready for JSON.

    Args:
        run: locked.
        target_epsilon: that of the run before it was locked, if a floor under shared noise has lowered it.

    Raises:
        ValueError: the run has no privacy, so there is nothing to plan.
    """
    plan = make_plan(run, run.local.nominal_units)
    if isinstance(plan, NoPrivacy):
        raise ValueError('privacy.unit = "none": a run without privacy has no plan')
    accounts = Remembered()
    built_by = ["bytes", run.canonical_json(), *(version(name) for name in ("torch", "transformers", "peft"))]
    return {
        "noise_multiplier": plan.noise_multiplier,
        "num_steps": plan.num_steps,
        "sampling_probability": plan.sampling_probability,
        "epsilon": accounts.epsilon(plan),
        "epsilon_rdp": accounts.epsilon_rdp(plan),
        "target_delta": plan.target_delta,
        "signal_to_noise_share": round(accounts.signal_to_noise_share(plan), 4),
        "bytes_per_client_round": int(recall(built_by, lambda: bytes_per_client_round(run))),
        "head_noise": round(head_noise(run, plan, int(recall(["head", *built_by], lambda: _head_size(run)))), 3),
        "table": [_row(accounts, plan, target) for target in TABLE],
        "secure_sum": _sum_facts(accounts, run, plan, target_epsilon or run.privacy.target_epsilon),
    }


def _sum_facts(accounts: Remembered, run: RunConfig, plan: PrivacyPlan, target: float) -> dict[str, Any] | None:
    """Return what sharing the noise promises and costs, beside other choices of its two numbers; None without it."""
    if plan.sharing is None:
        return None
    if_broken = _up_to(accounts, plan.if_broken)
    found = accounts.attack_true_positive_rate(plan.if_broken, FALSE_POSITIVE_RATE) if if_broken is not None else None
    return {
        "institutions": len(run.study.institutions),
        "min_clients": plan.sharing.min_members,
        "max_colluding": plan.sharing.max_colluding,
        "epsilon": accounts.epsilon(plan),
        "colluding": {number: _up_to(accounts, plan.if_colluding(number)) for number in _numbers(plan.sharing)},
        "epsilon_if_broken": if_broken,
        "attack_true_positive_rate": accounts.attack_true_positive_rate(plan, FALSE_POSITIVE_RATE),
        "attack_true_positive_rate_if_broken": found,
        "noise_against_local": round(plan.if_broken.noise_multiplier / plan.noise_multiplier, 3),
        "choices": [
            _choice(accounts, run, plan, (target, *numbers))
            for numbers in _other_choices(len(run.study.institutions), plan.sharing)
        ],
    }


def _other_choices(num: int, sharing: Sharing) -> list[tuple[int, int]]:
    """Return other pairs of fewest members and of those that may collude, which a run of ``num`` institutions may have.

    >>> _other_choices(20, Sharing(18, 3, 19, 2**36))
    [(20, 3), (12, 3), (18, 1), (18, 6), (18, 15)]
    """
    least, allowed = sharing.min_members, sharing.max_colluding
    fewest, most = max((num + allowed) // 2 + 1, allowed + 2), min(2 * least - num - 1, least - 2)
    of_members = [(other, allowed) for other in (num, fewest) if other != least]
    colluding = sorted({min(number, most) for number in (1, 2 * allowed, most)} - {allowed, 0})
    return list(dict.fromkeys(of_members)) + [(least, number) for number in colluding]


def _choice(accounts: Remembered, run: RunConfig, plan: PrivacyPlan, wanted: tuple[float, int, int]) -> dict[str, Any]:
    """Return what other numbers would promise; ``wanted``: the target epsilon, the fewest members, the colluding."""
    names, if_broken = len(run.study.institutions), run.privacy.target_epsilon_if_broken
    floor = accounts.calibrate(plan, if_broken).noise_multiplier if if_broken else 0.0
    local = accounts.calibrate(plan, wanted[0])
    other = local.shared(wanted[1], wanted[2], plan.expected_batch_size * names, floor)
    return {
        "min_clients": wanted[1],
        "max_colluding": wanted[2],
        "epsilon": accounts.epsilon(other),
        "epsilon_if_broken": _up_to(accounts, other.if_broken),
        "noise_against_this_run": round(other.if_broken.noise_multiplier / plan.if_broken.noise_multiplier, 3),
    }


def _numbers(sharing: Sharing) -> range:
    """Return the next two numbers of colluding members that are more than the run allows."""
    return range(sharing.max_colluding + 1, min(sharing.max_colluding + 3, sharing.min_members))


def _up_to(accounts: Remembered, plan: PrivacyPlan) -> float | None:
    """Return epsilon; None where a bound shows that it is above what any policy allows."""
    from confide.common.privacy.least import least_epsilon

    return accounts.epsilon(plan) if least_epsilon(plan) <= MAX_IF_BROKEN else None


def _row(accounts: Remembered, plan: PrivacyPlan, target: float) -> dict[str, float | None]:
    """Return the noise for another target; None if no noise reaches it, because of the validation counts."""
    try:
        calibrated = accounts.calibrate(plan, target)
    except ValueError:
        return {"epsilon": target, "noise_multiplier": None}
    return {
        "epsilon": target,
        "noise_multiplier": calibrated.noise_multiplier,
        "signal_to_noise_share": round(accounts.signal_to_noise_share(calibrated), 4),
        "attack_true_positive_rate": accounts.attack_true_positive_rate(calibrated, FALSE_POSITIVE_RATE),
    }


def bytes_per_client_round(run: RunConfig) -> int:
    """Return the size of an institution's update as it travels; no weights of the base are read."""
    import numpy as np

    from confide.common.protocol.transfer import update_bytes

    return update_bytes(run.federation, {name: np.zeros(shape, np.float32) for name, shape in _shapes(run).items()})


def _shapes(run: RunConfig) -> Schema:
    import torch

    from confide.common.model.adapter import build_module, schema
    from confide.common.model.base_models import find_model

    return schema(build_module(run, find_model(run.at(run.model.base)), torch.device("meta")))


def _head_size(run: RunConfig) -> int:
    """Return how many numbers a run's head has; 0 without a head."""
    return sum(math.prod(shape) for name, shape in _shapes(run).items() if not is_added(name))


def head_noise(run: RunConfig, plan: PrivacyPlan, head_size: int) -> float:
    """Return the length of the noise on a head in the mean over all steps and institutions, in clip norms.

    No mean of clipped gradients is longer than 1. The adapter below the head has its own noise, but what a text is
    told apart by is read off the head (docs/decisions.md). Of shared noise, each institution adds its share.
    """
    simulated = run.simulation.clients or 0 if run.simulation else 0
    institutions = max(run.federation.min_clients, len(run.study.institutions), simulated)
    updates = plan.num_steps * max(1.0, run.federation.participation * institutions)
    return plan.if_broken.noise_multiplier * math.sqrt(head_size / updates) / plan.expected_batch_size


def measure(run: RunConfig, num_steps: int = 20) -> dict[str, float]:
    """Measure the time of a round and peak memory on this machine, with local steps on made-up records.

    Each unit is one record. Their lengths spread evenly up to all that the task allows, whatever the lengths of the
    real ones: a plan reads no data.

    Returns:
        ``seconds_per_round`` (median step times ``local.steps``; one institution); ``peak_memory_mb`` (this process,
        without a GPU's); ``peak_gpu_memory_mb`` (tensors on the GPU that held most, 0 without one).
    """
    from confide.client.training.batches import batch_units
    from confide.client.training.local_steps import LocalWork, share, train
    from confide.client.training.trial import tried_shapes
    from confide.common.model.adapter import get_state
    from confide.common.model.devices import forget_gpu_peak, gpu_peak_mb, peak_memory_mb
    from confide.common.model.warm_model import warm_model
    from confide.common.privacy.coins import Coins

    forget_gpu_peak()
    model = warm_model(run, run.speed)
    batched = batch_units(_of_all_lengths(run, model), model, tried_shapes(model, run.speed.tokens_per_micro_batch))
    plan, received = make_plan(run, run.local.nominal_units), get_state(model.module)
    seconds = []
    for _ in range(num_steps):
        began = time.perf_counter()
        if isinstance(plan, PrivacyPlan) and plan.sharing:
            share(plan, received, model, batched, Coins.fresh())
        else:
            train(LocalWork(plan, received, 1, run.local.learning_rate), model, batched, Coins.fresh())
        seconds.append(time.perf_counter() - began)
    return {
        "seconds_per_round": round(statistics.median(seconds) * run.local.steps, 3),
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "peak_gpu_memory_mb": round(gpu_peak_mb(), 1),
    }


def _of_all_lengths(run: RunConfig, model: "WarmModel") -> "UnitTable":
    """Return units of one made-up record each: a sixteenth of the tokens that the task allows, two sixteenths, ... all.

    Sixteen records take no time to encode, so the units repeat them.
    """
    from confide.client.data.units import UnitTable
    from confide.common.data.batches import shortened

    task, records, number_of = run.task, [], min(_MAX_LENGTHS, run.local.nominal_units)
    for number in range(number_of):
        examples = task.examples(task.made_up(0, number), model.tokenizer)  # they fill all that the task allows
        tokens = math.ceil((number + 1) / number_of * task.max_length * len(examples))
        rest = [max(0, tokens - place * task.max_length) for place in range(len(examples))]
        records.append([shortened(*pair) for pair in zip(examples, rest, strict=True)])
    return UnitTable([records[unit % number_of] for unit in range(run.local.nominal_units)])
