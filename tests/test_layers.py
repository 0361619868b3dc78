"""The shape of the repository: imports point one way, packages are listed, private names stay put."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("common", "client", "server", "simulations")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SHIPPED = [path for path in SOURCES if "benchmarks" not in path.parts]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# The order of rooms in each folder: a file imports from its own room and from rooms to the left of it, at the top, in
# functions and for types alike. What stands directly in a folder is its ground, which every room may use. `verify`
# imports nothing of ours.
ORDER = {
    "common": (
        "privacy",
        "generation",
        "forms",
        "tasks",
        "methods",
        "config",
        "training",
        "data",
        "protocol",
        "model",
        "export",
        "curation",
        "explanation",
        "scoring",
        "pages",
        "cli",
        "verify",
    ),
    "client": ("privacy", "data", "site", "training", "answers", "service", "home", "steward", "page", "commands"),
    "server": ("home", "aggregation", "rounds", "results", "fleet", "daemon", "page", "commands"),
    "simulations": (
        "data",
        "sites",
        "engines",
        "studies",
        "interface",
        "reconstruction",
        "audit",
        "commands",
        "benchmarks",
    ),
}
USES = {"common": set[str](), "client": {"common"}, "server": {"common"}, "simulations": {"common", "client", "server"}}
MAX_FILES = 15  # of a room
MAX_LINES = 400  # of a file of tests
MAX_NAME = 75  # characters of a test's name
# `confide <command>` finds its commands by name and imports them on use.
PRIVATE_FLWR = ("flwr.supercore", "flwr.superlink", "flwr.supernode", "flwr.server", "flwr.common", "flwr.compat")
PRIVATE_FLWR_FILES = {
    "client/service/link.py",
    "client/service/self_test.py",
    "server/fleet/flower_app.py",
    "server/fleet/leftovers.py",
    "server/fleet/self_test.py",
    "server/fleet/superlink.py",
    "simulations/engines/grid.py",
}
AUDITED = [path for path in SOURCES if "privacy" in path.relative_to(ROOT).parts]
ROOMS = sorted({path.parent for path in SHIPPED})
SCRIPTS = sorted({path.parent for path in SOURCES} - set(ROOMS))  # no packages, and so without maps


def _name(path: Path) -> str:
    return ".".join(("confide", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


NAMES = {_name(path) for path in SOURCES}


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, at its top or inside a function."""
    return tuple(_found(path))


def _found(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(module: str) -> tuple[str, str]:
    """The folder and the room of a module of ours; the ground of a folder is no room."""
    _, folder, *rest = module.split(".")
    return folder, rest[0] if rest and (ROOT / folder / rest[0]).is_dir() else ""


def _may_import(importer: str, imported: str) -> bool:
    (folder, room), (other, theirs) = _room(importer), _room(imported)
    if folder != other:
        return other in USES[folder]
    if room == theirs:
        return True
    if "verify" in (room, theirs):
        return False
    rooms = ("", *ORDER[folder])
    return rooms.index(theirs) < rooms.index(room)


def _ours(path: Path) -> set[str]:
    """Modules of ours that a file imports."""
    return {module for module in _imports(path) if module in NAMES} - {_name(path)}


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_file_imports_only_from_its_own_room_and_from_rooms_to_its_left(path: Path) -> None:
    package = path.stem == "__init__"  # it may join what its own files give
    own = _name(path)
    wrong = [
        module for module in _ours(path) if not (package and _inside(module, own)) and not _may_import(own, module)
    ]
    assert wrong == []


def test_every_room_has_its_place_in_the_order() -> None:
    for folder, rooms in ORDER.items():
        there = {path.parent.name for path in SOURCES if path.parent.parent == ROOT / folder}
        assert there == set(rooms)
    assert not _may_import("confide.client.data.units", "confide.client.training.shares")
    assert not _may_import("confide.client.config", "confide.client.data.units")
    assert not _may_import("confide.common.verify.ledger", "confide.common.errors")
    assert not _may_import("confide.client.config", "confide.server.home.home")


def test_no_imports_go_in_a_circle() -> None:
    """A package stands for its `__init__`, which its own files may use."""
    left = {_name(path): _ours(path) for path in SOURCES}
    left = {name: {other for other in uses if not _inside(name, other)} for name, uses in left.items()}
    while free := {name for name, uses in left.items() if not uses & left.keys()}:
        left = {name: uses for name, uses in left.items() if name not in free}
    assert sorted(left) == []


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_the_map_of_a_room_names_exactly_its_files(room: Path) -> None:
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    lines = (ast.get_docstring(tree) or "").splitlines()
    named = {found[1] for line in lines if (found := re.match(r" *([a-z0-9_]+/?(?:\.py)?)  +\S", line))}
    files = {path.stem for path in room.glob("*.py")} - {"__init__"}
    rooms = {f"{path.parent.name}/" for path in room.glob("*/__init__.py")}
    assert {name.removesuffix(".py") for name in named} == files | rooms


@pytest.mark.parametrize("room", [*ROOMS, *SCRIPTS], ids=lambda room: str(room.relative_to(ROOT)))
def test_a_room_has_few_files(room: Path) -> None:
    assert len({path.stem for path in room.glob("*.py")} - {"__init__"}) <= MAX_FILES


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_the_step_knows_no_files_and_no_flower(path: Path) -> None:
    if ROOT / "common" / "privacy" not in path.parents:
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


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_tests_and_its_names_are_short_enough_to_be_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    names = [node.name for node in functions if node.name.startswith("test_")]
    assert [name for name in names if len(name) > MAX_NAME] == []


def test_the_picture_of_the_rooms_is_that_of_the_imports() -> None:
    from rooms import picture

    assert picture() in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), "python -m tests.rooms"


@pytest.mark.parametrize("path", SHIPPED, ids=_name)
def test_a_model_s_own_code_is_refused_wherever_one_is_loaded(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    calls = {
        id(node.func): [ast.unparse(each) for each in node.keywords] for node in nodes if isinstance(node, ast.Call)
    }
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in ("from_pretrained", "from_config"):
            assert "trust_remote_code=False" in calls.get(id(node), []), f"{path}:{node.lineno}"
