"""The product as others install it: a wheel, in an environment of its own, away from this folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("common", "client", "server", "simulations", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def confide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a wheel; what the product depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source, wheels, place = folder / "source", folder / "wheels", folder / "env"
    source.mkdir()
    for part in PARTS:  # a copy: setuptools would take up what an earlier build left in build/
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(place, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    # A path in a .pth file gives its packages, but not its own .pth files: the editable install stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    wheel = next(wheels.glob("*.whl"))
    subprocess.run([*pip, "--python", str(place), "install", "--no-deps", str(wheel)], check=True, capture_output=True)
    return place / "bin" / "confide"


def _run(command: Path, folder: Path, *words: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([command, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_and_templates_of_a_wheel_work(confide: Path, tmp_path: Path) -> None:
    assert "simulate" in _run(confide, tmp_path, "--help")
    assert "[policy]" in _run(confide, tmp_path, "client", "init")
    _run(confide, tmp_path, "server", "init", "home", "--host", "localhost")
    assert (tmp_path / "home" / "server.toml").is_file()
    assert "epsilon" in _run(confide, tmp_path, "plan")


def test_a_wheel_holds_every_file_that_is_no_code(confide: Path) -> None:
    installed = next(confide.parents[1].glob("lib/*/site-packages/confide"))
    data = [
        path
        for part in PARTS[:4]
        for path in (ROOT / part).rglob("*")
        if path.suffix in {".toml", ".html", ".jinja", ".css", ".js"}
    ]
    assert len(data) > 5
    assert [path for path in data if not (installed / path.relative_to(ROOT)).is_file()] == []
