"""The enrolment of an institution at a server: a request goes one way, a kit comes back.

Two people compare two fingerprints by telephone: that of the institution's keys before the operator approves them, and
that of the server's authority before the institution trusts its kit.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from confide.common.aloud import digits_of, grouped
from confide.common.errors import InputError


@dataclass(frozen=True)
class JoinRequest:
    """The request of an institution to a server's operator; all of it is public.

    Attributes:
        institution: its name.
        node_key: PEM of the EC key that signs its requests to Flower.
        update_key: the Ed25519 key that signs its updates, hex.
        signature: of the other fields by ``update_key``, hex.
    """

    institution: str
    node_key: str
    update_key: str
    signature: str = ""

    def text(self) -> str:
        """Return the text that the signature covers."""
        return json.dumps({**asdict(self), "signature": ""}, sort_keys=True)

    def fingerprint(self) -> str:
        """Return a fingerprint of both keys, short enough to be read aloud.

        >>> JoinRequest("st-mary", "a", "b").fingerprint()
        '7e18-f737-311b-2dc3-b2f2-69dd-7839-6b03'
        """
        return _fingerprint(f"{self.node_key}\n{self.update_key}".encode())


@dataclass(frozen=True)
class Kit:
    """The kit that a server's operator gives an approved institution; all of it is public.

    Attributes:
        address: "host:port" of the server.
        ca: PEM of the authority that issued the server's certificate.
        institution: the name of the institution that the kit is for.
        fingerprint: of the request that was approved.
    """

    address: str
    ca: str
    institution: str
    fingerprint: str


def _fingerprint(content: bytes) -> str:
    return grouped(hashlib.sha256(content).hexdigest()[:32])


def partner_fingerprint(update_key: str) -> str:
    """Return the fingerprint of an institution's update key (hex), which its partners in a secure sum compare.

    >>> partner_fingerprint("00" * 32)
    'ea4e-25f7-421b-41b3-d359-1bdf-a919-cd36'
    """
    return _fingerprint(f"confide partner\n{update_key}".encode())


def same_fingerprint(one: str, other: str) -> bool:
    """Return whether two fingerprints are the same, however they were typed.

    >>> same_fingerprint("7e18-f737", " 7E18:f7 37"), same_fingerprint("7e18-f737", "7e18-f738")
    (True, False)
    """
    return digits_of(one) == digits_of(other)


def authority_of(pem: str, source: str) -> tuple[str, str]:
    """Return the one certificate of an authority, as PEM that holds nothing else, and its fingerprint.

    Args:
        pem: as it came. A second certificate in it would be trusted too, though no person has compared it.
        source: named in errors.

    Raises:
        InputError: it holds no certificate, or several.
    """
    try:
        [certificate] = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise InputError(f"{source}: must hold one certificate, that of the server's authority") from None
    whole = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return whole, _fingerprint(certificate.public_bytes(serialization.Encoding.DER))


def write_json(value: JoinRequest | Kit) -> str:
    """Return a request or kit as the text of a file."""
    return json.dumps({"format": f"confide-{type(value).__name__.lower()}-1", **asdict(value)}, indent=1) + "\n"


def read_request(path: Path) -> JoinRequest:
    """Read a request file and check its signature; `InputError` for anything else."""
    return request_from(_text(path), str(path))


def request_from(text: str, named: str) -> JoinRequest:
    """Return the request in the text of a request file, named so in errors, after checking its signature."""
    request: JoinRequest = _parsed(text, named, JoinRequest)
    if not signed_by(request.update_key, request.text(), request.signature):
        raise InputError(f"{named}: the signature is not that of its own update key; ask for a new request")
    return request


def signed_by(public_hex: str, text: str, signature: str) -> bool:
    """Return whether an Ed25519 key made a signature; False also for text that is no key or no signature."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)).verify(bytes.fromhex(signature), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def read_kit(path: Path) -> Kit:
    """Read a kit file; `InputError` for anything else."""
    kit: Kit = _parsed(_text(path), str(path), Kit)
    return kit


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        return ""  # no JSON


def _parsed(text: str, named: str, kind: type[Any]) -> Any:
    expected = f"confide-{kind.__name__.lower()}-1"
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{named}: not JSON; it must be a file of format {expected!r}") from None
    names = {field.name for field in fields(kind)} | {"format"}
    if not isinstance(values, dict) or values.keys() != names or values.pop("format") != expected:
        raise InputError(f"{named}: must be a file of format {expected!r}")
    if not all(isinstance(value, str) and len(value) < 10_000 for value in values.values()):
        raise InputError(f"{named}: every field must be a text of less than 10,000 characters")
    if any("\ud800" <= sign <= "\udfff" for value in values.values() for sign in value):
        raise InputError(f"{named}: a field holds half a character")  # no fingerprint could be made of it
    return kind(**values)
