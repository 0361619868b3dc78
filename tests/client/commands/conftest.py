"""`confide data ...` inside this process."""

import sys
from collections.abc import Callable

import pytest

from confide.common.cli.main import main

ConfideData = Callable[..., tuple[int, str, str]]


@pytest.fixture
def confide_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ConfideData:
    """``confide_data("check", FILE)``: exit code, output and errors of the command."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["confide", "data", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    return call
