"""The shape of the repository: imports point one way, packages are listed, private names stay put."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("common", "client", "server", "simulations")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SHIPPED = [path for path in SOURCES if "benchmarks" not in path.parts]

# What a layer may import of ours, most specific first.
MAY_IMPORT = {
    "confide.common.privacy": ("confide.common.privacy",),
    "confide.common": ("confide.common",),
    "confide.client": ("confide.client", "confide.common"),
    "confide.server": ("confide.server", "confide.common"),
    "confide.simulations": ("confide",),
}
# `confide <command>` finds its commands by name and imports them on use.
PRIVATE_FLWR = ("flwr.supercore", "flwr.superlink", "flwr.supernode", "flwr.server", "flwr.common", "flwr.compat")
PRIVATE_FLWR_FILES = {
    "client/service/link.py",
    "server/fleet/flower_app.py",
    "server/fleet/leftovers.py",
    "server/fleet/superlink.py",
}
PRIVATE_FLWR_FILES |= {"simulations/grid.py"}
AUDITED_IN_CLIENT = ["policy", "account", "rows", "rules", "chain", "ledger", "outbox", "release", "witnesses"]
AUDITED = [
    *sorted((ROOT / "common" / "privacy").glob("*.py")),
    *(ROOT / "client" / f"{name}.py" for name in AUDITED_IN_CLIENT),
]


def _name(path: Path) -> str:
    return ".".join(("confide", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_point_one_way(path: Path) -> None:
    layer = next(layer for layer in MAY_IMPORT if _inside(_name(path), layer))
    ours = [module for module in _imports(path) if _inside(module, "confide")]
    allowed = [*MAY_IMPORT[layer], "confide"] if layer == "confide.simulations" else MAY_IMPORT[layer]
    assert [module for module in ours if not any(_inside(module, package) for package in allowed)] == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_the_audited_core_knows_no_files_and_no_flower(path: Path) -> None:
    if not _inside(_name(path), "confide.common.privacy"):
        return
    forbidden = ("flwr", "pathlib", "io", "shutil", "tempfile", "sqlite3", "requests", "logging")
    assert [module for module in _imports(path) if any(_inside(module, name) for name in forbidden)] == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_tasks_do_not_import_privacy(path: Path) -> None:
    if _inside(_name(path), "confide.common.tasks"):
        assert [module for module in _imports(path) if _inside(module, "confide.common.privacy")] == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_private_names_of_flower_stay_in_five_files(path: Path) -> None:
    if str(path.relative_to(ROOT)) in PRIVATE_FLWR_FILES:
        return
    private = [module for module in _imports(path) if any(_inside(module, name) for name in PRIVATE_FLWR)]
    private += [module for module in _imports(path) if module.startswith("flwr.simulation.")]
    assert [module for module in private if module != "flwr.simulation.run_simulation"] == []


def test_no_file_of_the_client_knows_how_to_fetch_code_or_to_install_it() -> None:
    """What it does when a server offers some: tests/client/service/test_link_tls.py."""
    words = ("getfab", "get_fab", "get-fab", "install_from_fab")
    texts = {path.name: path.read_text(encoding="utf-8").lower() for path in (ROOT / "client").rglob("*.py")}
    assert len(texts) > 30
    assert [(name, word) for name, text in texts.items() for word in words if word in text] == []


def test_every_folder_with_code_is_a_package_that_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {_name(path.parent / "__init__.py") for path in SHIPPED}
    assert set(listed) == folders
    assert all(
        (ROOT / package.replace("confide.", "").replace(".", "/") / "__init__.py").exists() for package in listed
    )


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= (150 if path in AUDITED else 250)
