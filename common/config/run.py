"""run.toml: the checked settings of one federated training. It belongs to the study designer; all of it is public."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import Field, PrivateAttr, model_validator

from confide.common.config.accountant import Accountant, computing
from confide.common.config.places import find_places, place_of
from confide.common.config.sections import (
    SECURE_SUM,
    EvaluationSection,
    FederationSection,
    LocalSection,
    ModelSection,
    PrivacySection,
    ReleaseSection,
    StudySection,
)
from confide.common.config.shared_noise import require_sum_fits, share_noise, sharing_of
from confide.common.config.simulation import SimulationSection, SpeedSection
from confide.common.config.toml import apply_override, check, read_toml
from confide.common.errors import InputError
from confide.common.methods import MethodSettings
from confide.common.methods.lora import Lora
from confide.common.privacy.plan import NoPrivacy, Plan, PrivacyPlan
from confide.common.settings import Section
from confide.common.tasks import TaskSettings

MAX_RUN_BYTES = 64 * 1024  # of a locked run as the server sends it to every institution


class RunConfig(Section):
    """run.toml as a whole."""

    study: StudySection
    model: ModelSection = ModelSection()
    adapter: MethodSettings = Lora()
    task: TaskSettings
    federation: FederationSection = FederationSection()
    local: LocalSection = LocalSection()
    privacy: PrivacySection = PrivacySection()
    evaluation: EvaluationSection = EvaluationSection()
    # Left out of a locked run where nothing is asked for: older runs, which do not name it, keep their hash.
    release: ReleaseSection = Field(ReleaseSection(), exclude_if=lambda value: not value.audit)
    simulation: SimulationSection | None = None
    speed: SpeedSection = SpeedSection()
    _places: dict[str, str] = PrivateAttr(default_factory=dict)  # of paths beside the file; no part of the run

    def at(self, path: str) -> str:
        """Return the place of a run's path on this machine: beside the run's file, else as it is written."""
        return place_of(path, self._places)

    @property
    def places(self) -> dict[str, str]:
        """The full paths of those files that stand beside the run's file."""
        return dict(self._places)

    def placed(self, places: Mapping[str, str]) -> "RunConfig":
        """Return the same run with these places of its paths: so a copy of its file in another folder finds them."""
        run = self.model_copy()
        run._places = {**self._places, **places}
        return run

    @model_validator(mode="after")
    def _few_enough_steps(self) -> "RunConfig":
        if self.num_steps > 1_000_000:
            raise ValueError(f"federation.num_rounds times local.steps = {self.num_steps} must be at most 1,000,000")
        return self

    @model_validator(mode="after")
    def _sum_fits(self) -> "RunConfig":
        require_sum_fits(self)
        return self

    @model_validator(mode="after")
    def _audit_needs_privacy(self) -> "RunConfig":
        if self.release.audit and self.privacy.unit == "none":
            raise ValueError('release.audit = true with privacy.unit = "none": such a run states no epsilon to attack')
        return self

    @model_validator(mode="after")
    def _earlier_needs_a_start(self) -> "RunConfig":
        if self.evaluation.earlier and not self.adapter.start_from:
            raise ValueError(
                f"evaluation.earlier = {self.evaluation.earlier!r}, but adapter.start_from names no adapter that was "
                "trained for an earlier task; set both, or evaluation.data alone"
            )
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
        """The most releases of noised validation counts that any institution makes."""
        every = self.evaluation.validation_every
        return self.federation.num_rounds // every if every else 0

    def canonical_json(self) -> str:
        """Return the settings that institutions agree to, as canonical JSON: all but `[simulation]` and `[speed]`."""
        content = self.model_dump(mode="json", exclude={"simulation", "speed"})
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def sha256(self) -> str:
        """Return the `run_sha256` of the protocol: the hash of `canonical_json`."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def make_plan(run: RunConfig, declared_units: int) -> Plan:
    """Return the plan of one institution under a locked run.

    Raises:
        ValueError: the run asks for privacy but its noise is not fixed yet (`lock` does that).
    """
    if run.privacy.unit == "none":
        return NoPrivacy(run.local.sampling_probability, run.num_steps, declared_units)
    return replace(_own_plan(run, declared_units), sharing=sharing_of(run))


def _own_plan(run: RunConfig, declared_units: int) -> PrivacyPlan:
    """Return the plan of an institution that adds all of the noise."""
    if run.privacy.noise_multiplier is None or run.privacy.unit == "none":
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


def require_base(run: RunConfig, base_sha256: str) -> None:
    """Raise `InputError` if the run names another hash of its base model."""
    if run.model.sha256 not in (None, base_sha256):
        raise InputError(
            f"model.sha256 = {run.model.sha256}, but the files of {run.model.base!r} hash to {base_sha256}; "
            "install the version that the study names, or correct the run"
        )


def lock(run: RunConfig, base_sha256: str, accountant: Accountant | None = None) -> RunConfig:
    """Return the run with its derived values fixed: the noise that meets the target, and the base model's hash.

    A noise multiplier that is already there stays, and the target becomes the epsilon that it gives.
    `common.privacy.accounting` computes both, unless the study designer passes another ``accountant``.

    Raises:
        InputError: no noise reaches the target, the base model is not the one that the run names, or a secure sum has
            no members yet.
    """
    require_base(run, base_sha256)
    if run.federation.aggregation == SECURE_SUM and not run.study.institutions:
        raise InputError(
            "study.institutions is empty, but a secure sum needs the names and keys of its members: a simulation takes "
            "them from its data, `confide server run` from the institutions that have joined; an institution sees the "
            "offered run with `confide client page`, and approves it by the study's name alone"
        )
    privacy = run.privacy
    if privacy.unit != "none":
        try:
            privacy = _with_noise(run, accountant or computing())
        except ValueError as error:
            raise InputError(f"privacy: {error}; allow more epsilon, more noise or fewer steps") from None
    model = run.model.model_copy(update={"sha256": base_sha256})
    locked = run.model_copy(update={"privacy": privacy, "model": model})
    size = len(locked.canonical_json().encode())
    if size > MAX_RUN_BYTES:
        raise InputError(f"the run takes {size} bytes as JSON, at most {MAX_RUN_BYTES} can be sent; shorten its labels")
    return locked


def _with_noise(run: RunConfig, by: Accountant) -> PrivacySection:
    """Return `[privacy]` with its noise fixed; `ValueError` if that is not possible."""
    privacy = run.privacy
    given = privacy.model_copy(update={"noise_multiplier": privacy.noise_multiplier or 1.0})
    plan = _own_plan(run.model_copy(update={"privacy": given}), run.local.nominal_units)
    noise_multiplier = by.calibrate(plan, privacy.target_epsilon).noise_multiplier
    if privacy.noise_multiplier is None:
        privacy = privacy.model_copy(update={"noise_multiplier": noise_multiplier})
    elif privacy.noise_multiplier != noise_multiplier:  # else the run was locked before
        from confide.common.privacy.least import least_epsilon  # the import takes a second

        if (least := least_epsilon(plan)) > 100:  # an accountant would take minutes and gigabytes
            raise ValueError(f"noise_multiplier gives epsilon {least:g} at least, must be at most 100")
        privacy = privacy.model_copy(update={"target_epsilon": by.epsilon(plan)})
    if run.federation.aggregation == SECURE_SUM:
        privacy = share_noise(run, replace(plan, noise_multiplier=privacy.noise_multiplier or 0.0), privacy, by)
    if privacy.target_epsilon > 100:
        raise ValueError(f"noise_multiplier gives epsilon {privacy.target_epsilon:g}, must be at most 100")
    return privacy


def checked(run: RunConfig) -> RunConfig:
    """Return a run whose sections were changed, after all rules were checked once more; `InputError` if one fails."""
    try:
        require_sum_fits(run)
    except ValueError as error:
        raise InputError(str(error)) from None
    return run


def load_run(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read and check a run.toml. Each override is ``"section.key=value"``, as TOML writes the value, or a bare word.

    Paths in the file count from its folder, those of an override from the current folder (`RunConfig.at`).

    Raises:
        InputError: the message names the file, the key, the value and the rule.
    """
    content = read_toml(path, RunConfig)
    for override in overrides or []:
        apply_override(content, override)
    run = check(RunConfig, content, str(path))
    written = {"model.base": run.model.base, "adapter.start_from": run.adapter.start_from}
    written |= {"evaluation.data": run.evaluation.data, "evaluation.earlier": run.evaluation.earlier}
    written |= {"simulation.data": run.simulation.data if run.simulation else None}
    for override in overrides or []:  # a path that a user types counts from the current folder
        written.pop(override.partition("=")[0], None)
    run._places.update(find_places(path, written))
    return run
