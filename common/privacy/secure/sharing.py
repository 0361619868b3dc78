"""The noise on a sum that several institutions add together: each adds a share of it."""

import math
from dataclasses import dataclass
from fractions import Fraction

MIN_BITS, MAX_BITS = 10, 19
# A discrete Gaussian of variance v is a continuous one of variance v - 16, rounded at random: so accounting for the
# continuous one bounds it, up to exp(-316) (docs/guarantee.md, "Shared noise"). In grid steps squared.
SMOOTHING = 16
_LEAST_STDDEV = 64  # of a share, in grid steps: far above what the sum of discrete Gaussians needs to be one itself
_WRAP = 2**30  # grid steps; a sum of 32-bit numbers wraps at 2**31
_DIGITS = 10**6
MAX_COORDINATES = 2**63 // 4**MAX_BITS - 1  # up to it the squares of a row add up within 64 bits on the finest grid
_MAX_LOSS = 0.02  # of a gradient, by truncation


@dataclass(frozen=True, slots=True)
class Sharing:
    """The shares of a sum. Every field is public.

    Attributes:
        min_members: the fewest institutions in a sum.
        max_colluding: the most members that may collude: tell the server their share, or leave out their noise.
        grid_bits: the clip norm is ``2**grid_bits`` grid steps.
        share_variance: variance of each member's noise on every coordinate, in grid steps squared.

    Raises:
        ValueError: a field is outside its range; the message names field, value and rule.
    """

    min_members: int
    max_colluding: int
    grid_bits: int
    share_variance: int

    def __post_init__(self) -> None:
        if not 0 <= self.max_colluding <= self.min_members - 2:
            raise ValueError(
                f"max_colluding={self.max_colluding!r} must be from 0 to min_members - 2 = {self.min_members - 2}: "
                "the noise of two honest members at least must stay"
            )
        if not MIN_BITS <= self.grid_bits <= MAX_BITS:
            raise ValueError(f"grid_bits={self.grid_bits!r} must be from {MIN_BITS} to {MAX_BITS}")
        if self.share_variance < _LEAST_STDDEV**2:
            raise ValueError(f"share_variance={self.share_variance!r} must be at least {_LEAST_STDDEV}^2")
        if 64 * self.min_members * self.share_variance > _WRAP**2:
            raise ValueError(
                f"share_variance={self.share_variance!r} of {self.min_members} members is too large: 8 standard "
                f"deviations of their sum must be at most 2^30"
            )

    @property
    def num_honest(self) -> int:
        """Return the number of members whose noise the promise counts."""
        return self.min_members - self.max_colluding

    def holds(self, noise_multiplier: float) -> bool:
        """Return whether the honest members' noise bounds a continuous Gaussian of this multiplier, exactly."""
        return self.num_honest * self.share_variance >= _variance(noise_multiplier, self.grid_bits)

    def room_problem(self, expected_units: float, size: int) -> str | None:
        """Return why a sum does not fit the grid; None if it does.

        Args:
            expected_units: units that all institutions together are expected to draw, by their declared sizes.
            size: numbers of the adapter; truncation takes about ``sqrt(size) / 2**(grid_bits + 1)`` of a gradient.
        """
        if expected_units * 2**self.grid_bits > _WRAP:
            most = _WRAP // 2**self.grid_bits
            return (
                f"of the sizes that institutions declare a step draws {expected_units:,.0f} units, a sum takes "
                f"{most:,}; raise local.nominal_units to their mean size"
            )
        if size > MAX_COORDINATES:
            return f"the adapter has {size:,} numbers, a secure sum at most {MAX_COORDINATES:,}; train fewer layers"
        if (loss := 0.5 * math.sqrt(size) / 2**self.grid_bits) > _MAX_LOSS:
            return (
                f"an adapter of {size:,} numbers loses {loss:.1%} of a gradient on a grid of 2^{self.grid_bits} steps, "
                f"at most {_MAX_LOSS:.0%} may be lost; train fewer layers, or lower local.sampling_probability"
            )
        return None

    def multiplier_of(self, num_shares: int) -> float:
        """Return the noise multiplier whose continuous accounting bounds the sum of so many shares, rounded down."""
        steps = math.isqrt((num_shares * self.share_variance - SMOOTHING) * _DIGITS**2 // 4**self.grid_bits)
        return steps / _DIGITS


def grid_bits(expected_units: float) -> int:
    """Return the finest grid on which a sum over so many units, all along one coordinate, stays within 2**30.

    Args:
        expected_units: units that all institutions together are expected to draw in a step.

    Raises:
        ValueError: not even the coarsest grid does.
    """
    for bits in range(MAX_BITS, MIN_BITS - 1, -1):
        if expected_units * 2**bits <= _WRAP:
            return bits
    raise ValueError(
        f"{expected_units:,.0f} units are expected in a step, at most {_WRAP // 2**MIN_BITS:,} fit into a secure sum; "
        "lower local.sampling_probability"
    )


def least_variance(of_sum: float, of_share: float, num_honest: int, bits: int) -> int:
    """Return the least variance of a share: for the sum's noise multiplier and, where it is above 0, for a share's own.

    >>> least_variance(1.6254, 0.0, 15, 19)
    48413790554
    """
    whole = _variance(of_sum, bits) / num_honest
    alone = _variance(of_share, bits) if of_share else Fraction(0)
    return math.ceil(max(whole, alone))


def _variance(multiplier: float, bits: int) -> Fraction:
    steps: Fraction = Fraction(multiplier) * 2**bits
    return steps * steps + SMOOTHING
