"""CI leaves out no test of the pages where a browser can be had, and says loudly where none can."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.browser import require_browser

_RUN = Path(__file__).parents[1] / ".ci" / "run"


def test_without_a_browser_tests_are_left_out_and_fail_where_one_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("playwright")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CONFIDE_NEED_BROWSER", raising=False)
    assert _outcome() is pytest.skip.Exception
    monkeypatch.setenv("CONFIDE_NEED_BROWSER", "1")
    assert _outcome() is pytest.fail.Exception


def _outcome() -> type[BaseException]:
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="no Chromium") as ended:
        require_browser()
    return ended.type


def _run(folder: Path, **commands: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/run where all commands that it calls are ours."""
    for place in ("bin", ".ci", ".venv/bin"):
        (folder / place).mkdir(parents=True)
    shutil.copy(_RUN, folder / ".ci" / "run")
    ours = {"make": 'echo "make $* ${CONFIDE_NEED_BROWSER:-}"', "id": "echo 0", **commands}
    for name, body in ours.items():
        _command(folder / "bin" / name, body)
    for name in ("confide", "python"):
        _command(folder / ".venv" / "bin" / name, "cat > /dev/null")
    for name in ("bash", "dirname", "mktemp", "rm", "cat", "chmod"):
        (folder / "bin" / name).symlink_to(str(shutil.which(name)))
    environment = {"PATH": str(folder / "bin"), "HERE": str(folder / "bin"), "HOME": os.environ.get("HOME", "/")}
    line = ["bash", str(folder / ".ci" / "run")]
    return subprocess.run(line, check=False, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def _command(path: Path, body: str) -> None:
    path.write_text(f"#!{shutil.which('bash')}\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


_INSTALLS = '[ "$1" = update ] || { echo > "$HERE/chromium"; chmod 755 "$HERE/chromium"; }'


@pytest.mark.parametrize("commands", [{"chromium": "exit 0"}, {"apt-get": _INSTALLS}])
def test_ci_with_a_browser_requires_it(tmp_path: Path, commands: dict[str, str]) -> None:
    ended = _run(tmp_path, **commands)
    assert (ended.returncode, "make -j2 test charts 1" in ended.stdout) == (0, True), ended.stderr
    assert "WITHOUT A BROWSER" not in ended.stdout


def test_ci_that_has_packages_and_installs_no_browser_fails(tmp_path: Path) -> None:
    ended = _run(tmp_path, **{"apt-get": '[ "$1" = update ]'})
    assert (ended.returncode != 0, "test" in ended.stdout) == (True, False)


def test_ci_whose_packages_do_not_install_fails_before_its_tests(tmp_path: Path) -> None:
    ended = _run(tmp_path, chromium="exit 0", make='echo "make $*"; [ "$1" != setup ]')
    assert (ended.returncode != 0, "test" in ended.stdout) == (True, False)


@pytest.mark.parametrize("commands", [{}, {"apt-get": "exit 1"}, {"apt-get": _INSTALLS, "id": "echo 1000"}])
def test_ci_without_packages_says_at_its_end_what_was_left_out(tmp_path: Path, commands: dict[str, str]) -> None:
    ended = _run(tmp_path, **commands)
    assert (ended.returncode, "make -j2 test charts \n" in ended.stdout) == (0, True), ended.stderr
    assert "WITHOUT A BROWSER" in ended.stdout.splitlines()[-1]
