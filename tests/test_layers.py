"""The shape of the repository: imports point one way, packages are listed, private names stay put."""

import ast
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

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


@cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree, parsed once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def offenders(paths: Iterable[Path], wrong: Callable[[Path], Any]) -> dict[str, Any]:
    """What is wrong in each of some files; a test of its own for every file takes longer than the rule."""
    looked = {str(path.relative_to(ROOT)): wrong(path) for path in paths}
    assert looked, "a rule without files shows nothing"
    return {name: found for name, found in looked.items() if found}


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, at its top or inside a function."""
    return tuple(_found(path))


def _found(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
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


def _from_the_right(path: Path) -> list[str]:
    package, own = path.stem == "__init__", _name(path)  # a package may join what its own files give
    return [module for module in _ours(path) if not (package and _inside(module, own)) and not _may_import(own, module)]


def test_a_file_imports_only_from_its_own_room_and_from_rooms_to_its_left() -> None:
    assert offenders(SOURCES, _from_the_right) == {}


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


def _not_on_its_map(room: Path) -> set[str]:
    lines = (ast.get_docstring(tree_of(room / "__init__.py")) or "").splitlines()
    named = {found[1] for line in lines if (found := re.match(r" *([a-z0-9_]+/?(?:\.py)?)  +\S", line))}
    files = {path.stem for path in room.glob("*.py")} - {"__init__"}
    rooms = {f"{path.parent.name}/" for path in room.glob("*/__init__.py")}
    return {name.removesuffix(".py") for name in named} ^ (files | rooms)


def test_the_map_of_a_room_names_exactly_its_files() -> None:
    assert offenders(ROOMS, _not_on_its_map) == {}


def _too_many_files(room: Path) -> int:
    return max(0, len({path.stem for path in room.glob("*.py")} - {"__init__"}) - MAX_FILES)


def test_a_room_has_few_files() -> None:
    assert offenders([*ROOMS, *SCRIPTS], _too_many_files) == {}


def _imports_of(path: Path, packages: Iterable[str]) -> list[str]:
    return [module for module in _imports(path) if any(_inside(module, name) for name in packages)]


def test_the_step_knows_no_files_and_no_flower() -> None:
    core = [path for path in SOURCES if ROOT / "common" / "privacy" in path.parents]
    forbidden = ("flwr", "pathlib", "io", "shutil", "tempfile", "sqlite3", "requests", "logging")
    assert offenders(core, lambda path: _imports_of(path, forbidden)) == {}


def test_tasks_do_not_import_privacy() -> None:
    tasks = [path for path in SOURCES if _inside(_name(path), "confide.common.tasks")]
    assert offenders(tasks, lambda path: _imports_of(path, ["confide.common.privacy"])) == {}


def _private_of_flower(path: Path) -> list[str]:
    private = _imports_of(path, PRIVATE_FLWR)
    private += [module for module in _imports(path) if module.startswith("flwr.simulation.")]
    return [module for module in private if module != "flwr.simulation.run_simulation"]


def test_private_names_of_flower_stay_in_a_few_files() -> None:
    assert offenders(SOURCES, _private_of_flower).keys() <= PRIVATE_FLWR_FILES


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


def _beyond(path: Path, most: int) -> int:
    """How many lines of a file are too many."""
    return max(0, len(path.read_text(encoding="utf-8").splitlines()) - most)


def test_a_file_is_short_enough_to_be_read() -> None:
    assert offenders(SOURCES, lambda path: _beyond(path, 150 if path in AUDITED else 250)) == {}


def _long_names(path: Path) -> list[str]:
    functions = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [node.name for node in functions if node.name.startswith("test_") and len(node.name) > MAX_NAME]


def test_a_file_of_tests_and_its_names_are_short_enough_to_be_read() -> None:
    assert offenders(TESTS, lambda path: _beyond(path, MAX_LINES)) == {}
    assert offenders(TESTS, _long_names) == {}


def test_the_picture_of_the_rooms_is_that_of_the_imports() -> None:
    from rooms import picture

    assert picture() in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), "python -m tests.rooms"


def _loads_with_code(path: Path) -> list[int]:
    """The lines on which a file loads a model and does not refuse the model's own code."""
    nodes = list(ast.walk(tree_of(path)))
    calls = {
        id(node.func): [ast.unparse(each) for each in node.keywords] for node in nodes if isinstance(node, ast.Call)
    }
    loads = [
        node for node in nodes if isinstance(node, ast.Attribute) and node.attr in ("from_pretrained", "from_config")
    ]
    return [node.lineno for node in loads if "trust_remote_code=False" not in calls.get(id(node), [])]


def test_a_model_s_own_code_is_refused_wherever_one_is_loaded() -> None:
    assert offenders(SHIPPED, _loads_with_code) == {}
