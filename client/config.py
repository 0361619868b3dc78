"""The settings in site.toml, checked. Neither they nor the records that they name ever leave the institution."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from confide.common.config.simulation import SpeedSection
from confide.common.config.toml import check, expanded, read_toml
from confide.common.errors import InputError
from confide.common.settings import Section


class InstitutionSection(Section):
    """`[institution]`: the name of this institution."""

    name: str = Field(min_length=1, max_length=64)

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError(f"{name!r} must be printable characters: no server takes another name")
        return name


class DatasetSection(Section):
    """`[dataset]`: the people, the file, and the public facts about them."""

    id: str = Field(min_length=1)
    path: Path
    columns: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    unit: Literal["record", "group"] = "record"
    max_records_per_group: int = Field(8, ge=1)
    declared_units: int = Field(ge=1)
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    max_chars: int = Field(20_000, ge=1)
    min_usable_fraction: float = Field(0.5, ge=0, le=1)

    @property
    def most_records(self) -> int:
        """The largest number of records that count for one unit."""
        return self.max_records_per_group if self.unit == "group" else 1

    @model_validator(mode="after")
    def _group_needs_a_column(self) -> "DatasetSection":
        if (self.unit == "group") != ("group" in self.columns):
            raise ValueError(f"unit = {self.unit!r} with columns {self.columns}: unit 'group' needs one")
        return self


class PolicySection(Section):
    """`[policy]`: the limits that the institution sets. An absent bound refuses every run with privacy.

    Only `max_epsilon_per_study` may be absent: `max_epsilon` alone holds then. ``min_clip_norm`` and
    ``max_head_weight`` bound how far a rounding before the clip can grow. ``min_release_seconds`` bounds how finely a
    clock can tell the training time.

    For noise that institutions share: `max_epsilon_if_broken` bounds the epsilon that is left if more of them collude
    than a run allows; absent, it equals `max_epsilon`. ``tolerate_colluding`` is the least number of colluding partners
    that a run must withstand, counted over all partners together; absent, every such run is refused.
    """

    max_epsilon: float | None = Field(None, ge=0.01, le=100)
    max_epsilon_per_study: float | None = Field(None, ge=0.01, le=100)
    max_epsilon_if_broken: float | None = Field(None, ge=0.01, le=100)
    tolerate_colluding: int | None = Field(None, ge=0)
    max_delta: float | None = Field(None, ge=1e-15, le=1e-2)
    min_noise_multiplier: float | None = Field(None, ge=0.1)
    max_steps: int | None = Field(None, ge=1)
    max_rounds: int | None = Field(None, ge=1)
    max_sampling_probability: float | None = Field(None, gt=0, le=1)
    min_clip_norm: float | None = Field(None, ge=1e-6, le=1e6)
    max_head_weight: float | None = Field(None, ge=1e-6, le=1e6)
    min_release_seconds: float | None = Field(None, ge=1, le=86_400)
    studies: tuple[str, ...] = ()
    base_models: tuple[Annotated[str, Field(pattern=r"^(any|[0-9a-f]{64})$")], ...] = ()
    require_approval: bool = True
    share_metrics: Literal["none", "private"] = "none"
    allow_no_privacy: bool = False

    @model_validator(mode="after")
    def _second_cap_is_no_lower(self) -> "PolicySection":
        first, second = self.max_epsilon, self.max_epsilon_if_broken
        if first is not None and second is not None and second < first:
            raise ValueError(f"max_epsilon_if_broken = {second:g} must be at least max_epsilon = {first:g}")
        return self


class StateSection(Section):
    """`[state]`: the folders of the ledger and of its anchor, on local disks; two disks are better than one."""

    dir: Path = Path("state")
    anchor: Path = Path("state-anchor")


class ModelsSection(Section):
    """`[models]`: the folder in which finished adapters arrive."""

    dir: Path = Path("models")


class SiteConfig(Section):
    """The whole of site.toml."""

    remedy = "`confide client init` prints a site.toml with every key"
    institution: InstitutionSection
    dataset: DatasetSection
    policy: PolicySection = PolicySection()
    compute: SpeedSection = SpeedSection()
    state: StateSection = StateSection()
    models: ModelsSection = ModelsSection()
    # Fingerprint of the key of each partner in a secure sum, as a person compared it with that institution.
    partners: dict[str, str] = Field(default_factory=dict)


def load_site_config(path: Path) -> SiteConfig:
    """Read and check a site.toml; `InputError` names file, key, value and rule. Paths start at the file's folder."""
    config = check(SiteConfig, read_toml(path, SiteConfig), str(path))

    def place(key: str, value: Path) -> Path:
        return path.absolute().parent / expanded(value, f"{path}: {key}")

    dataset = config.dataset.model_copy(update={"path": place("dataset.path", config.dataset.path)})
    folders = {"dir": place("state.dir", config.state.dir), "anchor": place("state.anchor", config.state.anchor)}
    anchor, state_dir = folders["anchor"].resolve(), folders["dir"].resolve()
    if anchor.is_relative_to(state_dir) or state_dir.is_relative_to(anchor):
        raise InputError(
            f"{path}: state.anchor = {folders['anchor']} and state.dir = {folders['dir']}: neither may be in the "
            "other, for a restored copy would take both back together; put the anchor on another disk"
        )
    models = ModelsSection(dir=place("models.dir", config.models.dir))
    state = config.state.model_copy(update=folders)
    return config.model_copy(update={"dataset": dataset, "state": state, "models": models})
