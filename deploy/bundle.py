"""Collects all that a machine without a network needs to install Confide: see the INSTALL.txt that it writes.

    python deploy/bundle.py FOLDER [--base MODEL]

The wheels are those for the Python and the platform that run this. MODEL is the folder of a base model; the default
base model is among the wheels.
"""

import argparse
import hashlib
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SOURCES = ("common", "client", "server", "simulations", "pyproject.toml", "README.md", "LICENSE")
_PARTS = {"wheels", "models", "requirements.txt", "constraints.txt", "INSTALL.txt", "SHA256SUMS"}
_INSTALL = """\
Confide {version}, with all that it needs: for Python {python} on {platform}, glibc {libc} or newer.

First compare one checksum with that of the people who made this folder, by telephone. Then let it check all files:

    sha256sum SHA256SUMS
    sha256sum --check --strict --quiet SHA256SUMS

Two commands install Confide. They need no network; pip checks every wheel once more.

    sudo python{python} -m venv /opt/confide
    sudo /opt/confide/bin/pip install --no-index --find-links wheels --require-hashes -r requirements.txt

`/opt/confide/bin/confide doctor` then names what is still in the way. Users and folders: docs/deployment.md.
{base}"""
_BASE = """
A base model lies in models/. Every machine needs it in a folder of its user, which docs/deployment.md makes:

    sudo cp -r -t /var/lib/confide/models models/{name}
"""


def sha256(path: Path) -> str:
    """Return the hash of a file, as hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def collect_wheels(folder: Path) -> None:
    """Build or fetch the wheels of Confide, of the default base model and of all their needs, by constraints.txt."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "confide"  # a copy: setuptools would take up what an earlier build left in build/
        source.mkdir()
        for part in _SOURCES:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, source / part)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", "wheel"]
        subprocess.run(  # noqa: S603 - our own words
            [*pip, "--constraint", ROOT / "constraints.txt", "--wheel-dir", folder, f"{source}[demo]"], check=True
        )


def requirements(wheels: Path) -> str:
    """Return a line for each wheel: its name, version and hash, so that pip installs exactly these."""
    lines = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, version, *_ = wheel.name.split("-")
        lines.append(f"{name}=={version} --hash=sha256:{sha256(wheel)}\n")
    return "".join(lines)


def checksums(folder: Path) -> str:
    """Return a line for each file under a folder, as sha256sum reads them."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return "".join(f"{sha256(folder / path)}  {path}\n" for path in files if str(path) != "SHA256SUMS")


def remove_bundle(folder: Path) -> None:
    """Remove an earlier bundle, whole or half-made; end with a message if the folder holds anything else."""
    if not folder.exists():
        return
    if not folder.is_dir() or (others := {path.name for path in folder.iterdir()} - _PARTS):
        found = "is a file" if not folder.is_dir() else f"holds {min(others)!r}, which is not of a bundle"
        sys.exit(f"{folder} {found}; name a new folder, or that of an earlier bundle, which is made anew")
    shutil.rmtree(folder)


def write_bundle(folder: Path, base: Path | None) -> None:
    """Write everything beside the wheels: requirements, base model, instructions, checksums."""
    [ours] = (folder / "wheels").glob("confide-*.whl")
    (folder / "requirements.txt").write_text(requirements(folder / "wheels"), encoding="utf-8")
    shutil.copy(ROOT / "constraints.txt", folder)
    if base:
        shutil.copytree(base, folder / "models" / base.name)
    text = _INSTALL.format(
        version=ours.name.split("-")[1],
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        platform=sysconfig.get_platform(),
        libc=platform.libc_ver()[1],
        base=_BASE.format(name=base.name) if base else "",
    )
    (folder / "INSTALL.txt").write_text(text, encoding="utf-8")
    (folder / "SHA256SUMS").write_text(checksums(folder), encoding="utf-8")


def main() -> None:
    """Make the folder anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, help="folder of a base model")
    options = parser.parse_args()
    if options.base and not (options.base / "config.json").is_file():
        sys.exit(f"{options.base} has no config.json; --base takes the folder of a base model")
    if options.base and options.base.resolve().is_relative_to(options.folder.resolve()):
        sys.exit(f"{options.base} is in {options.folder}, which is made anew; name a base model outside of it")
    remove_bundle(options.folder)
    collect_wheels(options.folder / "wheels")
    write_bundle(options.folder, options.base and options.base.absolute())
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: {size / 1e6:,.0f} MB; {options.folder}/INSTALL.txt says how to install it")
    print(f"sha256 of its SHA256SUMS: {sha256(options.folder / 'SHA256SUMS')}")


if __name__ == "__main__":
    main()
