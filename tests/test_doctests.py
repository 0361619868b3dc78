"""The examples in docstrings, run under the names that the modules install as."""

import doctest
import importlib

import pytest
from test_layers import SHIPPED, _name

MODULES = [_name(path) for path in SHIPPED if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert results.attempted > 0
    assert results.failed == 0
