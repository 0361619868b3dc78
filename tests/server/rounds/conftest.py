"""Runs for tests of rounds."""

from collections.abc import Callable
from typing import Any

import pytest
from support.rounds import MakeRun

from confide.common.config.run import RunConfig


@pytest.fixture
def make(make_run: MakeRun) -> Callable[..., RunConfig]:
    def factory(**federation: Any) -> RunConfig:
        settings = {"num_rounds": 2, "server_optimizer": "none", "average_decay": 0.0, **federation}
        return make_run(federation=settings, model={"sha256": "b" * 64}, local={"steps": 3})

    return factory
