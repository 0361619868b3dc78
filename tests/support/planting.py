"""A bug planted as a change of a module's text, for as long as a test runs."""

import inspect
from collections.abc import Callable
from types import ModuleType

import pytest

from confide.common.errors import ConfideError

Planted = dict[str, tuple[str, str, Callable[[], None]]]  # name -> the right passage, the wrong one, the check


def require_caught(patch: pytest.MonkeyPatch, module: ModuleType, bug: tuple[str, str, Callable[[], None]]) -> None:
    """Check that a check, which passes, fails once a passage of the module's text is changed."""
    right, wrong, check = bug
    check()
    plant(patch, module, right, wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception, ConfideError)):
        check()


def plant(patch: pytest.MonkeyPatch, module: ModuleType, right: str, wrong: str) -> None:
    """Run a module's text anew with one passage changed, in the module itself, until the patch is undone."""
    text = inspect.getsource(module)
    assert text.count(right) == 1, f"{module.__name__} has {text.count(right)} times {right!r}"
    for name, value in list(vars(module).items()):
        patch.setattr(module, name, value)  # notes what to put back
    exec(compile(text.replace(right, wrong), str(module.__file__), "exec"), vars(module))  # noqa: S102 - our own text
