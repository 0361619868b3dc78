"""The frozen plan of a run: the sampler, the clip, the noise and the accountant all read this one object."""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["record", "group"]
Clipping = Literal["automatic", "abadi"]


def _require(condition: bool, name: str, value: object, rule: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not condition:
        raise ValueError(f"{name}={value!r} must be {rule}")


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """A Poisson-subsampled Gaussian mechanism, repeated ``num_steps`` times. Every field is public.

    Formal guarantee: the outputs of at most ``num_steps`` calls of `step.private_step` with this plan, and of at most
    ``validation_releases`` calls of `noise.noised_cells`, are together
    (epsilon, ``target_delta``)-differentially private under adding or removing one whole unit, with epsilon
    as `accounting.epsilon` states it, for any model weights and any other units.

    Attributes:
        unit: the protected unit: one record, or all records of one group.
        sampling_probability: chance of each unit to take part in a step, drawn anew in every step.
        num_steps: the most steps that may ever be taken under this plan.
        declared_units: number of units that the institution declares in public; never counted from the data.
        clip_norm: bound on the L2 norm of one unit's gradient.
        clipping: "automatic" (Bu et al., arXiv 2206.07136) or "abadi" (Abadi et al., arXiv 1607.00133).
        noise_multiplier: noise standard deviation over ``clip_norm`` (a ratio).
        target_delta: the delta at which epsilon is stated.
        head_weight: public constant that multiplies the task head's gradient before the clip. The noised
            sum is divided by it again, so it only shifts the bound between head and adapter.
        validation_releases: the most releases of noised validation counts (`noise.noised_cells`).
        validation_noise_multiplier: noise standard deviation of such a count, in units (a unit weighs 1 in it).

    Raises:
        ValueError: a field is outside its range; the message names field, value and rule.
    """

    unit: Unit
    sampling_probability: float
    num_steps: int
    declared_units: int
    clip_norm: float
    clipping: Clipping
    noise_multiplier: float
    target_delta: float
    head_weight: float = 1.0
    validation_releases: int = 0
    validation_noise_multiplier: float = 10.0

    def __post_init__(self) -> None:
        _require(self.unit in ("record", "group"), "unit", self.unit, "'record' or 'group'")
        _require(self.clipping in ("automatic", "abadi"), "clipping", self.clipping, "'automatic' or 'abadi'")
        _require(0 < self.sampling_probability <= 1, "sampling_probability", self.sampling_probability, "in (0, 1]")
        _require(self.num_steps >= 1, "num_steps", self.num_steps, "at least 1")
        _require(self.declared_units >= 1, "declared_units", self.declared_units, "at least 1")
        _require(0 < self.target_delta < 1, "target_delta", self.target_delta, "in (0, 1)")
        _require(self.validation_releases >= 0, "validation_releases", self.validation_releases, "at least 0")
        for name in ("noise_multiplier", "validation_noise_multiplier"):
            _require(0 < getattr(self, name) <= 1e6, name, getattr(self, name), "in (0, 1e6]")
        for name in ("clip_norm", "head_weight"):
            # Far from the ends of float32: there a factor overflows, or a square vanishes and with it the bound.
            _require(1e-6 <= getattr(self, name) <= 1e6, name, getattr(self, name), "in [1e-6, 1e6]")

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise on the sum of clipped gradients (absolute, per coordinate)."""
        return self.noise_multiplier * self.clip_norm

    @property
    def expected_batch_size(self) -> float:
        """The public constant by which the noised sum is divided."""
        return self.sampling_probability * self.declared_units


@dataclass(frozen=True, slots=True)
class NoPrivacy:
    """A plan without any privacy: another type, never a flag, so that no private code path can take it.

    It samples like a `PrivacyPlan` (the comparison is fair), does not clip and adds no noise.
    """

    sampling_probability: float
    num_steps: int
    declared_units: int

    def __post_init__(self) -> None:
        _require(0 < self.sampling_probability <= 1, "sampling_probability", self.sampling_probability, "in (0, 1]")
        _require(self.num_steps >= 1, "num_steps", self.num_steps, "at least 1")
        _require(self.declared_units >= 1, "declared_units", self.declared_units, "at least 1")

    @property
    def expected_batch_size(self) -> float:
        """The public constant by which the sum of gradients is divided."""
        return self.sampling_probability * self.declared_units


Plan = PrivacyPlan | NoPrivacy
