"""Members of a secure sum without models: envelopes, statements and masks as institutions make them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from confide.client.privacy.sum_checks import Agreed
from confide.common.protocol.secure_sum import (
    ShareEnvelope,
    SignedShare,
    Statement,
    mask_key_of,
    masked,
    new_mask_secret,
    total,
)
from confide.common.protocol.signatures import Identity

LINEAGE, RUN, BASE, INPUT = "ab" * 16, "1" * 64, "2" * 64, "3" * 64
NAMES = [f"hospital-{number:02d}" for number in range(7)]


@dataclass(frozen=True)
class Holder:
    """An institution that holds a share of one round."""

    identity: Identity
    envelope: ShareEnvelope
    secret: bytes
    share_P: NDArray[np.uint32]

    @property
    def name(self) -> str:
        return self.envelope.institution

    def signed(self, **changes: object) -> SignedShare:
        """Its envelope, with some fields changed before it signs."""
        text = replace(self.envelope, **changes).text()  # type: ignore[arg-type]
        return SignedShare(text, self.identity.sign(text))

    def masked(self, statement: Statement) -> NDArray[np.uint32]:
        return masked(self.share_P, self.secret, self.name, statement)


def holder(name: str, size: int = 64, round_number: int = 1) -> Holder:
    """An institution whose share is made of small numbers, so that a sum without masks shows at a glance."""
    secret = new_mask_secret()
    envelope = ShareEnvelope(
        study="reviews",
        lineage=LINEAGE,
        what="share",
        round=round_number,
        institution=name,
        run_sha256=RUN,
        base_sha256=BASE,
        input_sha256=INPUT,
        mask_key=mask_key_of(secret),
        ledger_head="4" * 64,
    )
    numbers = np.random.default_rng(sum(name.encode())).integers(-1000, 1000, size)
    return Holder(Identity(name.encode().ljust(32, b".")), envelope, secret, (numbers % 2**32).astype(np.uint32))


def holders(count: int = 7, size: int = 64) -> list[Holder]:
    return [holder(name, size) for name in NAMES[:count]]


def agreed(of: list[Holder], min_members: int = 5) -> Agreed:
    """What a person agreed to: these institutions with their keys."""
    return Agreed({one.name: one.identity.public_hex() for one in of}, min_members)


def statement_of(of: list[Holder]) -> Statement:
    return Statement.of(one.signed() for one in of)


def looks_uniform(numbers: NDArray[np.uint32]) -> bool:
    """Chi-square of the top byte at alpha 1e-6 (255 degrees of freedom: 391)."""
    counts = np.bincount(numbers.astype(np.int64) >> 24, minlength=256)
    return float(((counts - len(numbers) / 256) ** 2).sum() / (len(numbers) / 256)) < 391


def sum_of(answers: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    return total(answers)
