"""The frozen plan of a run: the sampler, the clip, the noise and the accountant all read this one object."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from confide.common.privacy.secure.sharing import Sharing, grid_bits, least_variance

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
        sharing: None where each institution adds all of the noise. Else ``noise_multiplier`` is that of a sum over
            institutions, if at most ``sharing.max_colluding`` of its members collude; `if_broken` tells of one share.

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
    sharing: Sharing | None = None

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
        if self.sharing is not None:
            rule = f"at most what {self.sharing.num_honest} shares add"
            _require(self.sharing.holds(self.noise_multiplier), "noise_multiplier", self.noise_multiplier, rule)
            least = self.sharing.multiplier_of(1)  # so no account of a share alone is below that of the sum
            _require(self.noise_multiplier >= least, "noise_multiplier", self.noise_multiplier, f"at least {least}")

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise on the sum of clipped gradients (absolute, per coordinate)."""
        return self.noise_multiplier * self.clip_norm

    @property
    def expected_batch_size(self) -> float:
        """The public constant by which the noised sum is divided."""
        return self.sampling_probability * self.declared_units

    def as_fields(self) -> dict[str, Any]:
        """Return the plan as ledgers and run directories hold it: ``sharing`` only where something is shared."""
        return {name: value for name, value in asdict(self).items() if name != "sharing" or value is not None}

    def if_colluding(self, num_colluding: int) -> "PrivacyPlan":
        """Return the plan whose account holds if so many members of every sum collude; itself where nothing is shared.

        Those who collude take their own share away, and with it their noise.
        """
        if self.sharing is None:
            return self
        left = self.sharing.multiplier_of(self.sharing.min_members - num_colluding)
        return replace(self, noise_multiplier=left, sharing=None)

    @property
    def if_broken(self) -> "PrivacyPlan":
        """The plan whose account holds if all other members collude, or the masks are broken: of one share alone."""
        return self if self.sharing is None else self.if_colluding(self.sharing.min_members - 1)

    def shared(self, min_members: int, max_colluding: int, expected_units: float, floor: float = 0.0) -> "PrivacyPlan":
        """Return the plan whose noise the members of a sum share; its own noise may rise to that of the floor.

        Args:
            min_members: the fewest institutions in a sum.
            max_colluding: the most of them that may collude.
            expected_units: units that all institutions together are expected to draw in a step.
            floor: least noise multiplier of one share alone; 0 for none.

        Raises:
            ValueError: as `Sharing` and `grid_bits` say.
        """
        bits, num_honest = grid_bits(expected_units), max(1, min_members - max_colluding)
        variance = least_variance(self.noise_multiplier, floor, num_honest, bits)
        sharing = Sharing(min_members, max_colluding, bits, variance)
        risen = int(sharing.multiplier_of(num_honest) * 10**4) / 10**4
        return replace(self, noise_multiplier=max(self.noise_multiplier, risen), sharing=sharing)


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
