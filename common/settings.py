"""The base of every section of a settings file, and a setting that two files share."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict

_MLFLOW = ("http://", "https://", "sqlite:")


class Section(BaseModel):
    """A section of a settings file, or the whole file: unknown keys are errors, and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    remedy: ClassVar[str] = "`confide init` prints a run.toml with every key"


def _known(value: str) -> str:
    if value not in ("none", "tensorboard") and not value.startswith(_MLFLOW):
        raise ValueError(
            f'{value!r} must be "none", "tensorboard", or an address of MLflow: http://, https:// or sqlite:'
        )
    return value


# Where a run's curves go: nowhere, into files of TensorBoard in the run directory, or to an MLflow at an address.
Tracking = Annotated[str, AfterValidator(_known)]
