"""A secure sum: the envelopes that its members sign, the statement that lists them, and the masks that cancel in it.

The masks of a statement cancel in the sum over all of its members and in nothing else. So whoever lacks one member's
answer learns nothing from the others. Pure; both ends use it.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from confide.common.protocol.wire import MAX_ENVELOPE, MessageError, canonical, json_object, typed

NAME = "confide-sum-1"
MAX_STATEMENT_BYTES = 512 * 1024
REHEARSAL = "rehearsal"  # `what` of both envelopes of a rehearsal: neither kind fits into the other's statement
NO_ROW = "0" * 64  # their `ledger_head`: a rehearsal is charged in no ledger
_HEX = re.compile("[0-9a-f]{64}")
Shared = NDArray[np.uint32]


@dataclass(frozen=True)
class ShareEnvelope:
    """The facts that an institution states of the share that it holds. Nothing in it depends on its data."""

    study: str
    lineage: str
    what: str  # "share", or `REHEARSAL`
    round: int
    institution: str
    run_sha256: str
    base_sha256: str
    input_sha256: str
    mask_key: str  # X25519, hex, fresh for this share
    ledger_head: str  # hash of the ledger row that charged it

    def text(self) -> str:
        """Return the canonical JSON that the institution signs."""
        return canonical(asdict(self))


@dataclass(frozen=True)
class SumEnvelope:
    """The facts that an institution states of a masked share; it is the receipt that the server shows later."""

    study: str
    lineage: str
    what: str  # "sum", or `REHEARSAL`
    round: int
    institution: str
    run_sha256: str
    base_sha256: str
    input_sha256: str
    statement_sha256: str
    payload_sha256: str
    ledger_head: str

    def text(self) -> str:
        """Return the canonical JSON that the institution signs."""
        return canonical(asdict(self))


@dataclass(frozen=True)
class SignedShare:
    """An envelope's text as it was signed, with its signature in hex."""

    text: str
    signature: str

    def envelope(self) -> ShareEnvelope:
        """Return the envelope; `MessageError` for a text that is not the canonical text of one."""
        if len(self.text) > MAX_ENVELOPE:
            raise MessageError("form: not an envelope")
        envelope: ShareEnvelope = typed(ShareEnvelope, json_object(self.text))
        if envelope.text() != self.text:
            raise MessageError("form: an envelope that is not in canonical form")
        if not (_HEX.fullmatch(envelope.mask_key) and _HEX.fullmatch(envelope.ledger_head)):
            raise MessageError("form: mask_key and ledger_head are 64 lower-case hex digits")
        return envelope


@dataclass(frozen=True)
class Statement:
    """The members of one sum, each with all that it signed. The hash of its text names the sum."""

    members: tuple[SignedShare, ...]

    def text(self) -> str:
        """Return its canonical JSON."""
        return canonical({"members": [[one.text, one.signature] for one in self.members], "protocol": NAME})

    def sha256(self) -> str:
        """Return the hash that names the sum, in hex."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    @classmethod
    def of(cls, shares: Iterable[SignedShare]) -> "Statement":
        """Return the statement of a sum of these shares, in the order of their institutions."""
        return cls(tuple(sorted(shares, key=lambda share: share.envelope().institution)))

    @classmethod
    def from_text(cls, text: str) -> "Statement":
        """Make it from an unchecked text; `MessageError` unless that is the canonical text of a statement."""
        if len(text) > MAX_STATEMENT_BYTES:
            raise MessageError("form: not a statement")
        members = json_object(text).get("members")
        if not isinstance(members, list) or not all(_is_pair(member) for member in members):
            raise MessageError("form: not the members of a sum")
        statement = cls(tuple(SignedShare(*member) for member in members))
        if statement.text() != text:
            raise MessageError("form: a statement that is not in canonical form")
        return statement


def _is_pair(member: Any) -> bool:
    return isinstance(member, list) and len(member) == 2 and all(isinstance(part, str) for part in member)


def new_mask_secret() -> bytes:
    """Return 32 secret bytes for one share: an X25519 key, from the operating system, never derived or used again."""
    return X25519PrivateKey.generate().private_bytes_raw()


def mask_key_of(secret: bytes) -> str:
    """Return the public half of a mask key, in hex."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw().hex()


def require_mask_key(mask_key: str) -> None:
    """Check that a member's public key gives pair keys; `MessageError` for a point of small order, or no key."""
    _exchange(new_mask_secret(), mask_key)


def masked(share_P: Shared, secret: bytes, institution: str, statement: Statement) -> Shared:
    """Return a share under the masks of a statement, modulo 2**32.

    Args:
        share_P: the share, shape ``(P,)``, uint32.
        secret: its mask key; the statement holds the public half.
        institution: the member that masks.
        statement: checked.

    Raises:
        MessageError: a member's public key is none.
    """
    masked_P, digest = share_P.copy(), bytes.fromhex(statement.sha256())
    for envelope in (member.envelope() for member in statement.members):
        if envelope.institution == institution:
            continue
        low, high = sorted((institution, envelope.institution))
        mask_P = pair_mask(_exchange(secret, envelope.mask_key), digest, (low, high), share_P.size)
        masked_P = masked_P + mask_P if institution == low else masked_P - mask_P
    return masked_P


def pair_mask(shared_secret: bytes, statement_sha256: bytes, names: tuple[str, str], count: int) -> Shared:
    """Return the mask of two members in one statement, shape ``(count,)``: the first adds it, the second subtracts it.

    HKDF-SHA256 (RFC 5869) over the X25519 secret, with the statement's hash as salt and both names as info, gives an
    AES-256 key; the mask is its keystream in counter mode from block 0. Another statement or another key gives a mask
    that is independent of this one.
    """
    info = b"\0".join([NAME.encode(), *(name.encode() for name in names)])
    key = HKDF(hashes.SHA256(), 32, statement_sha256, info).derive(shared_secret)
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(stream.update(bytes(4 * count)), dtype="<u4").astype(np.uint32)


def total(masked_shares: Iterable[Shared]) -> Shared:
    """Return the sum of all members' masked shares, modulo 2**32: the masks are gone."""
    first, *others = masked_shares
    sum_P = first.copy()
    for masked_P in others:
        sum_P += masked_P
    return sum_P


def as_signed(total_P: Shared) -> NDArray[np.int64]:
    """Return a sum modulo 2**32 as the signed numbers that it stands for, if none of them has left (-2**31, 2**31)."""
    return total_P.astype(np.int32).astype(np.int64)


def _exchange(secret: bytes, mask_key: str) -> bytes:
    try:
        public = X25519PublicKey.from_public_bytes(bytes.fromhex(mask_key))
        return X25519PrivateKey.from_private_bytes(secret).exchange(public)
    except ValueError:
        raise MessageError("mask_key: not a key of X25519") from None
