"""The local steps of one round: a received adapter in, the change of it out."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from confide.client.training.batches import BatchedUnits
from confide.common.model.adapter import coordinate_weights, schema, set_state
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import NoPrivacy, Plan, PrivacyPlan
from confide.common.privacy.sampling import draw_units
from confide.common.privacy.secure.share import private_share
from confide.common.privacy.step import Worker, private_step
from confide.common.protocol.gate import PLAIN_NORM_BOUND, RECEIVED_NORM_BOUND
from confide.common.protocol.secure_sum import Shared
from confide.common.tensors import State, alphabetical, norm_of, split


@dataclass(frozen=True)
class LocalWork:
    """The work of one round at an institution, after its policy has agreed."""

    plan: Plan
    received: State
    local_steps: int
    learning_rate: float


def train(work: LocalWork, model: WarmModel, units: BatchedUnits, coins: CoinSource) -> State:
    """Take the local steps of one round by stateless gradient descent.

    Guarantee: under a `PrivacyPlan` the result is post-processing of ``local_steps`` calls of `private_step`, each
    with a draw of its own.

    Returns:
        The change of the adapter: trained minus received, float32, in the schema of the adapter.
    """
    if work.local_steps > work.plan.num_steps:
        raise ValueError(f"local_steps={work.local_steps} must not be above the plan's num_steps={work.plan.num_steps}")
    shapes = schema(model.module)
    head_weight = 1.0 if isinstance(work.plan, NoPrivacy) else work.plan.head_weight
    weights_P = coordinate_weights(shapes, head_weight)
    current = dict(work.received)
    for _ in range(work.local_steps):
        current = _within_the_gate(current)
        if isinstance(work.plan, NoPrivacy):
            set_state(model.module, current)
            gradient_P = plain_step(work.plan, coins, units, model)
        else:
            gradient_P = private_step(work.plan, coins, _workers(model, units, current), weights_P)
        change = split((-work.learning_rate * gradient_P).astype(np.float32), shapes)
        current = {name: current[name] + change[name] for name in shapes}
    return {name: current[name] - work.received[name] for name in shapes}


def share(plan: PrivacyPlan, received: State, model: WarmModel, units: BatchedUnits, coins: CoinSource) -> Shared:
    """Take the one step of a round whose noise is shared.

    Returns:
        Array of shape ``(P,)``, uint32: `private_share`, tensors in alphabetical order.
    """
    shapes = schema(model.module)
    weights_P = coordinate_weights(shapes, plan.head_weight)
    parts = split(private_share(plan, coins, _workers(model, units, received), weights_P), shapes)
    return np.concatenate([parts[name].ravel() for name in alphabetical(shapes)])


def _workers(model: WarmModel, units: BatchedUnits, state: State) -> list[Worker]:
    """Write a state into the model on each of its devices, ready for a private step."""
    placed = [(units, model), *((replace(units, device=copy.device), copy) for copy in model.copies)]
    for _, each in placed:
        set_state(each.module, state)
        each.wrapped.enable_hooks()
    return [Worker(own, each.wrapped, each.losses) for own, each in placed]


def _within_the_gate(state: State) -> State:
    """Scale a state back to the norm that is accepted from a server, if it is above: post-processing, and free.

    A server chooses the learning rate, so after the first local step the weights could be of any size.
    """
    norm = norm_of(state)
    if not norm > RECEIVED_NORM_BOUND:
        return state
    return {name: value * np.float32(RECEIVED_NORM_BOUND / norm) for name, value in state.items()}


def plain_step(plan: NoPrivacy, coins: CoinSource, units: BatchedUnits, model: WarmModel) -> NDArray[np.float32]:
    """Take the same step without privacy: no per-example gradients, no noise, and one bound on the whole gradient.

    A micro-batch whose gradient is not finite is left out, for one record must not end the training; a private step
    leaves out such a unit.

    Returns:
        Sum of unit gradients over the expected batch size, scaled back to `PLAIN_NORM_BOUND`, shape ``(P,)``, float32.
    """
    model.wrapped.disable_hooks()
    parameters = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    sum_P = torch.zeros(sum(parameter.numel() for parameter in parameters), device=model.device)
    for batch, unit_B in units.micro_batches(draw_units(plan, coins, units.num_units)):
        shares = torch.tensor([1 / units.num_examples(unit) for unit in unit_B], device=model.device)
        loss = (model.losses(batch)[: len(unit_B)] * shares).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        gradient_P = torch.cat([part.flatten() for part in found])
        if gradient_P.isfinite().all():
            sum_P += gradient_P
    mean_P = sum_P / plan.expected_batch_size
    factor = min(1.0, PLAIN_NORM_BOUND / max(float(mean_P.norm()), 1e-12))
    gradient: NDArray[np.float32] = (factor * mean_P).cpu().numpy()
    return gradient
