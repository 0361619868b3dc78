"""`[simulation]` and `[speed]` of run.toml. No institution agrees to them, for they never leave a simulation."""

from typing import Literal

from pydantic import Field, model_validator

from confide.common.settings import Section, Tracking


class SimulationSection(Section):
    """`[simulation]`: the data of a simulated federation, and their partition into institutions."""

    data: str
    columns: dict[str, str] = Field(default_factory=dict)
    partition: Literal["iid", "natural", "dirichlet", "power-law"] = "iid"
    by: str | None = None
    clients: int | None = Field(None, ge=1)
    alpha: float = Field(0.5, gt=0)
    test_fraction: float = Field(0.2, gt=0, lt=1)
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    max_records: int | None = Field(None, ge=10)
    max_chars: int = Field(20_000, ge=1)
    tracking: Tracking = "none"

    @model_validator(mode="after")
    def _natural_needs_a_column(self) -> "SimulationSection":
        if (self.partition == "natural") != (self.by is not None):
            raise ValueError(
                f"partition = {self.partition!r} with by = {self.by!r}: 'by' names the column of a natural partition"
            )
        return self


class SpeedSection(Section):
    """Settings that cannot change privacy: `[speed]` of a simulation, `[compute]` of an institution's machine."""

    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: Literal["auto", "eager", "fixed"] = "auto"
    checkpointing: bool = False
    tokens_per_micro_batch: int = Field(512, ge=16)
    prefix_cache: bool = True


AUTO = SpeedSection()  # what a machine does without settings
