"""A run that every installation of these tests may be asked for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"sampling_probability": 1.0, "nominal_units": 20}), hash_model(base_folder))
