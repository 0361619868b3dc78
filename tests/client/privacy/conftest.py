"""An institution's folder, opened as a client opens it."""

from pathlib import Path

import pytest
from support.ledgers import Place, open_place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return open_place(tmp_path)
