"""Exact samples of the discrete Gaussian (Canonne, Kamath and Steinke, arXiv 2004.00010, algorithms 1 to 3).

Every choice compares a uniform with ``exp(-gamma)`` for a rational gamma. It is made in float64 where the two differ by
more than any rounding. Otherwise, once in 2**43 choices, it is made exactly, with more bits of the uniform and
as many digits of the exponential as it takes. So no sample depends on a rounding error.
"""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from confide.common.privacy.coins import CoinSource

Integers = NDArray[np.int64]

# The rounding errors of gamma, of its exponential and of the uniform are below 2**-49 together.
FLOAT_SLACK = 2.0**-44
_DIGITS_PER_BIT = math.log10(2)


def discrete_gaussian(variance: int, count: int, coins: CoinSource) -> Integers:
    """Return ``count`` independent integers x, each with probability proportional to ``exp(-x**2 / (2 variance))``.

    Args:
        variance: parameter of the distribution, at least 1.
        count: how many.
        coins: the noise stream.
    """
    scale = math.isqrt(variance) + 1

    def attempt(missing: int) -> Integers:
        found = discrete_laplace(scale, int(missing * 1.35) + 16, coins)
        excess = np.abs(found) - variance / scale

        def gamma(index: int) -> Fraction:
            return Fraction((abs(int(found[index])) * scale - variance) ** 2, 2 * variance * scale**2)

        kept: Integers = found[bernoulli_exp(excess**2 / (2 * variance), gamma, coins)]
        return kept

    return _collect(attempt, count)


def discrete_laplace(scale: int, count: int, coins: CoinSource) -> Integers:
    """Return ``count`` independent integers x, each with probability proportional to ``exp(-abs(x) / scale)``."""

    def attempt(missing: int) -> Integers:
        low = uniform_below(scale, int(missing * 1.7) + 16, coins)

        def gamma(index: int) -> Fraction:
            return Fraction(int(low[index]), scale)

        kept = low[bernoulli_exp(low / scale, gamma, coins)]
        found = kept + scale * _geometric(len(kept), coins)
        negative = (coins.noise_words(len(found)) & np.uint64(1)).astype(bool)
        once = ~(negative & (found == 0))  # else zero would come twice as often
        signed: Integers = np.where(negative, -found, found)[once]
        return signed

    return _collect(attempt, count)


def uniform_below(bound: int, count: int, coins: CoinSource) -> Integers:
    """Return ``count`` integers from 0 to ``bound - 1``, each exactly as likely as the others."""
    highest = 2**64 // bound * bound - 1

    def attempt(missing: int) -> Integers:
        words = coins.noise_words(missing)
        fair = words[words <= np.uint64(highest)] % np.uint64(bound)
        return fair.astype(np.int64)

    return _collect(attempt, count)


def bernoulli_exp(
    gamma_N: NDArray[np.float64], exact: Callable[[int], Fraction], coins: CoinSource
) -> NDArray[np.bool]:
    """Return True with probability exp(-gamma), exactly, shape ``(N,)``.

    Args:
        gamma_N: rational numbers of at least 0, as float64 has them.
        exact: gives the number itself at a place.
        coins: the noise stream: a word for each number, and more where it is close.
    """
    words_N = coins.noise_words(len(gamma_N))
    uniforms_N, chances_N = words_N.astype(np.float64) * 2.0**-64, np.exp(-gamma_N)
    below_N = uniforms_N < chances_N
    for index in np.nonzero(np.abs(uniforms_N - chances_N) <= FLOAT_SLACK)[0]:
        below_N[index] = _is_below(int(words_N[index]), exact(int(index)), coins)
    return below_N


def _is_below(uniform: int, gamma: Fraction, coins: CoinSource) -> bool:
    """Return whether a uniform that begins with these 64 bits is below exp(-gamma): more bits until that is certain."""
    bits = 64
    while True:
        with localcontext() as context:
            context.prec = int(bits * _DIGITS_PER_BIT) + 30
            chance = (-(Decimal(gamma.numerator) / Decimal(gamma.denominator))).exp() * (Decimal(2) ** bits)
            error = Decimal(2) ** bits * Decimal(10) ** (5 - context.prec)
            if Decimal(uniform + 1) <= chance - error:
                return True
            if Decimal(uniform) >= chance + error:
                return False
        uniform, bits = (uniform << 64) | int(coins.noise_words(1)[0]), bits + 64


def _geometric(count: int, coins: CoinSource) -> Integers:
    """Return how often in a row something of probability exp(-1) happened, ``count`` times."""
    often, alive = np.zeros(count, np.int64), np.arange(count)
    while len(alive):
        alive = alive[bernoulli_exp(np.ones(len(alive)), lambda _: Fraction(1), coins)]
        often[alive] += 1
    return often


def _collect(attempt: Callable[[int], Integers], count: int) -> Integers:
    """Return the first ``count`` of independent samples, of which an attempt gives about as many as are missing."""
    parts, found = list[Integers](), 0
    while found < count:
        parts.append(attempt(count - found)[: count - found])
        found += len(parts[-1])
    return np.concatenate([np.empty(0, np.int64), *parts])
