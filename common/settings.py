"""The base of every section of a settings file."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a settings file, or the whole file: unknown keys are errors, and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    remedy: ClassVar[str] = "`confide init` prints a run.toml with every key"
