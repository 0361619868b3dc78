"""Rounds on canaries by the code that clients run, as the server and those in league with it see them."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from confide.client.training.batches import BatchedUnits
from confide.client.training.local_steps import LocalWork, share, train
from confide.common.config.run import RunConfig
from confide.common.model.adapter import get_state, schema
from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import PrivacyPlan
from confide.common.protocol.secure_sum import (
    NO_ROW,
    REHEARSAL,
    Shared,
    ShareEnvelope,
    SignedShare,
    Statement,
    as_signed,
    mask_key_of,
    masked,
    new_mask_secret,
    total,
)
from confide.common.protocol.signatures import Identity
from confide.common.protocol.transfer import decode, encode
from confide.common.tensors import alphabetical, split
from confide.simulations.audit.canaries import Canaries

MakeCoins = Callable[[], CoinSource]
Seen = NDArray[np.float64]  # (2, canaries): sums of clipped gradients with noise, in clip norms; adapter, then head


@dataclass(frozen=True)
class Colluding:
    """A view on a sum: so many of its members have told the server their shares; ``plan`` is what is promised then."""

    num_colluding: int
    plan: PrivacyPlan


def local_round(
    run: RunConfig, plan: PrivacyPlan, canaries: Canaries, units: BatchedUnits, make_coins: MakeCoins
) -> Seen:
    """Return what the server reads off one institution's update: trained, encoded, sent, decoded."""
    local, shapes = run.local, schema(canaries.model.module)
    work = LocalWork(plan, _zeros(canaries), local.steps, local.learning_rate)
    change = train(work, canaries.model, units, make_coins())
    transfer = run.federation.transfer
    got = decode(encode(change, transfer), shapes, transfer, np.inf)
    scale = -plan.expected_batch_size / (local.learning_rate * plan.clip_norm)
    return np.stack([scale * got["lora_B.weight"][0], scale * plan.head_weight * got["head.weight"][0]]).astype(float)


def summed_round(
    plan: PrivacyPlan, canaries: Canaries, units: BatchedUnits, make_coins: MakeCoins, views: list[Colluding]
) -> list[Seen]:
    """Return what is read off a sum of the fewest members, without the shares of those who told theirs, for each view.

    The canaries are at the first member. The others have no unit that matters: whoever attacks may know all of them.
    """
    if plan.sharing is None:
        raise ValueError("the plan shares no noise")
    nobody = canaries.units([])
    members = [units, *[nobody] * (plan.sharing.min_members - 1)]
    shares = [share(plan, _zeros(canaries), canaries.model, each, make_coins()) for each in members]
    sum_P = _sum(shares)
    return [_read(plan, canaries, sum_P, shares[len(shares) - view.num_colluding :]) for view in views]


def lone_share(plan: PrivacyPlan, canaries: Canaries, units: BatchedUnits, make_coins: MakeCoins) -> Seen:
    """Return what is read off one institution's share, where the sum is broken."""
    share_P = share(plan, _zeros(canaries), canaries.model, units, make_coins())
    return _read(plan, canaries, share_P, [])


def _sum(shares: list[Shared]) -> Shared:
    """Return the sum as the server computes it, of shares under the masks of a statement."""
    secrets = {f"member-{number:03}": new_mask_secret() for number in range(len(shares))}
    statement = Statement.of(_signed(name, secret) for name, secret in secrets.items())
    return total(
        masked(share_P, secret, name, statement)
        for share_P, (name, secret) in zip(shares, secrets.items(), strict=True)
    )


def _signed(name: str, secret: bytes) -> SignedShare:
    identity = Identity(os.urandom(32))
    hashes = {"run_sha256": NO_ROW, "base_sha256": NO_ROW, "input_sha256": NO_ROW, "ledger_head": NO_ROW}
    envelope = ShareEnvelope("audit", NO_ROW[:32], REHEARSAL, 1, name, mask_key=mask_key_of(secret), **hashes)
    return SignedShare(envelope.text(), identity.sign(envelope.text()))


def _read(plan: PrivacyPlan, canaries: Canaries, sum_P: Shared, told: list[Shared]) -> Seen:
    if plan.sharing is None:
        raise ValueError("the plan shares no noise")
    rest_P = sum_P.copy()
    for share_P in told:
        rest_P -= share_P
    steps_P = (as_signed(rest_P) / 2.0**plan.sharing.grid_bits).astype(np.float32)
    parts = split(steps_P, alphabetical(schema(canaries.model.module)))
    return np.stack([parts["lora_B.weight"][0], parts["head.weight"][0]]).astype(float)


def _zeros(canaries: Canaries) -> dict[str, NDArray[np.float32]]:
    return {name: np.zeros_like(value) for name, value in get_state(canaries.model.module).items()}


def views_of(plan: PrivacyPlan) -> list[Colluding]:
    """Return the views on a sum: as many colluding as allowed, one more, and all others."""
    if plan.sharing is None:
        raise ValueError("the plan shares no noise")
    allowed, others = plan.sharing.max_colluding, plan.sharing.min_members - 1
    numbers = sorted({allowed, min(allowed + 1, others), others})
    return [Colluding(number, promised(plan, number)) for number in numbers]


def promised(plan: PrivacyPlan, num_colluding: int) -> PrivacyPlan:
    """Return the plan that a run states for so many colluding members."""
    if plan.sharing is not None and num_colluding == plan.sharing.max_colluding:
        return replace(plan, sharing=None)
    return plan.if_colluding(num_colluding)
