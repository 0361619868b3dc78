"""What the fault tests share: one zygote for all, and a deployment that is judged at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deployment import Deployment, deployed
from support.faults import judge
from support.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Forks every process of these tests."""
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def deployment(tmp_path: Path, zygote: Zygote) -> Iterator[Deployment]:
    """A server's folder, and nobody yet; whatever a test does, the laws hold at its end."""
    with deployed(tmp_path, zygote) as made:
        yield made
        judge(made)
