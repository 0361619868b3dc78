"""The client's check of the installed Flower: it passes here, and it can fail."""

import pytest

from confide.client.service import self_test
from confide.common.errors import ConfideError


def test_the_installed_flower_packs_and_unpacks_an_answer() -> None:
    self_test.require_flower()


def test_a_flower_that_packs_otherwise_is_refused_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "inflate_object_from_contents", lambda name, contents: contents[name])
    with pytest.raises(ConfideError, match=r"Flower 1\..* does not work as this client needs it: AttributeError"):
        self_test.require_flower()
