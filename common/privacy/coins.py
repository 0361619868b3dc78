"""Private coins: a cryptographic source for masks and noise.

torch's CPU generator uses only 32 bits of its seed, and a fresh ``torch.Generator()`` has a constant seed: neither
can hide a patient. The keystream here is AES-256 in counter mode under a key from the operating system.
"""

import os
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

# The first 8 bytes of the counter block name the stream, the last 8 count: no two streams ever share a block.
_STREAMS = {"mask": 1, "noise": 2}  # 3 is reserved: augmentation of texts would draw from a stream of its own


class CoinSource(Protocol):
    """A source of randomness as the private step needs it. Tests pass their own; installed clients cannot."""

    def mask_uniforms(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` independent uniforms in (0, 1], for sampling."""

    def noise_uniforms(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` independent uniforms in (0, 1], for noise."""

    def noise_words(self, count: int) -> NDArray[np.uint64]:
        """Return ``count`` independent uniform 64-bit words, for noise."""


class Coins:
    """All private randomness of one RESERVE, from one 256-bit key that is never stored, logged or shared.

    Guarantees: streams for mask and noise are disjoint; no value is given out twice; a copy that crossed a ``fork``
    refuses to work. Otherwise parent and child would draw the same noise, and their difference would be noise-free.

    >>> coins = Coins.fresh()
    >>> bool((coins.mask_uniforms(3) > 0).all())
    True
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError(f"len(key)={len(key)} must be 32")
        self._process = os.getpid()
        self._keystreams: dict[str, CipherContext] = {
            name: Cipher(algorithms.AES(key), modes.CTR(number.to_bytes(8, "big") + bytes(8))).encryptor()
            for name, number in _STREAMS.items()
        }

    @classmethod
    def fresh(cls) -> "Coins":
        """Make new coins under a fresh key from the operating system."""
        return cls(os.urandom(32))

    def mask_uniforms(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` uniforms in (0, 1], shape ``(count,)``, from the mask stream."""
        return self._uniforms("mask", count)

    def noise_uniforms(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` uniforms in (0, 1], shape ``(count,)``, from the noise stream."""
        return self._uniforms("noise", count)

    def noise_words(self, count: int) -> NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit words, shape ``(count,)``, from the noise stream."""
        return self._words("noise", count)

    def _uniforms(self, stream: str, count: int) -> NDArray[np.float64]:
        # 53 bits, the precision of a float64. The + 1 keeps 0 out: Box-Muller takes the logarithm.
        return ((self._words(stream, count) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53

    def _words(self, stream: str, count: int) -> NDArray[np.uint64]:
        if os.getpid() != self._process:
            raise RuntimeError("these coins were made before a fork: draw Coins.fresh() in the child")
        return np.frombuffer(self._keystreams[stream].update(bytes(8 * count)), dtype="<u8")
