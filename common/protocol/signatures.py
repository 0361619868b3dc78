"""An institution's own key: it signs all that leaves, so that the institution recognises it when a server shows it."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Identity:
    """An Ed25519 key pair, from 32 secret bytes.

    >>> identity = Identity(bytes(32))
    >>> identity.signed_by_me("text", identity.sign("text")), identity.signed_by_me("else", identity.sign("text"))
    (True, False)
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    def public_hex(self) -> str:
        """Return the public key in hex."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, text: str) -> str:
        """Return the signature of a text in hex."""
        return self._key.sign(text.encode()).hex()

    def signed_by_me(self, text: str, signature: str) -> bool:
        """Return whether this key made the signature."""
        try:
            self._key.public_key().verify(bytes.fromhex(signature), text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True
