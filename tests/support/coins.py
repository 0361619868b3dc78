"""Injected coins. They live under tests/ only: no key, flag or variable of an installed client reaches them."""

import numpy as np
from numpy.typing import NDArray


class TestCoins:
    """Uniforms in (0, 1] from a seeded PCG64, one generator a stream.

    ``quiet`` gives noise of exactly zero (Box-Muller's radius at 1.0); ``drawn`` fixes every mask: True draws all
    units, False none.
    """

    __test__ = False

    def __init__(self, seed: int, *, quiet: bool = False, drawn: bool | None = None) -> None:
        self.quiet, self.drawn = quiet, drawn
        self._mask, self._noise = (np.random.Generator(np.random.PCG64([seed, stream])) for stream in range(2))

    def mask_uniforms(self, count: int) -> NDArray[np.float64]:
        if self.drawn is not None:
            return np.full(count, 2.0**-53 if self.drawn else 1.0)
        return 1.0 - self._mask.random(count)

    def noise_uniforms(self, count: int) -> NDArray[np.float64]:
        return np.ones(count) if self.quiet else 1.0 - self._noise.random(count)

    def noise_words(self, count: int) -> NDArray[np.uint64]:
        return self._noise.integers(0, 2**64, count, dtype=np.uint64)
