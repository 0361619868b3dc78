"""What the fault tests share: one zygote for all, and a deployment that is judged at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deployment import Deployment, deployed
from support.faults import judge
from support.zygote import Zygote

# Those that take longest, half of it waiting: begun last, they would keep one worker busy after all others.
_FIRST = ["test_network.py", "test_hostile_clients.py", "test_deployment.py", "test_disk.py", "test_equality.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: _FIRST.index(item.path.name) if item.path.name in _FIRST else len(_FIRST))


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
