"""The adapter that a run goes on from is one of the server's own folder, and its hash stands in the locked run."""

from pathlib import Path

import pytest

from confide.common.config.run import RunConfig, load_run
from confide.common.errors import InputError
from confide.common.export.start import hash_adapter
from confide.common.protocol.asks import RUN_FILE, WEIGHTS_FILE
from confide.server.home.home import init_home
from confide.server.home.locking import lock_run

_RUN = """
[study]
name = "goes-on"
[model]
base = "{base}"
[adapter]
targets = ["query", "value"]
{start}
[task]
labels = ["negative", "positive"]
[privacy]
noise_multiplier = 1.0
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return init_home(tmp_path / "srv", ["localhost"], 8443).folder


def _written(folder: Path, base: Path, start: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "run.toml"
    path.write_text(_RUN.format(base=base, start=start and f'start_from = "{start}"'), encoding="utf-8")
    return path


def _adapter(folder: Path, run: RunConfig, tensors: bytes) -> str:
    """The files of an adapter that its hash is of; locking opens no tensor."""
    folder.mkdir()
    (folder / RUN_FILE).write_text(run.canonical_json(), encoding="utf-8")
    (folder / WEIGHTS_FILE).write_bytes(tensors)
    return hash_adapter(folder)


def test_a_start_is_found_in_the_server_s_folder(home: Path, base_folder: Path, tmp_path: Path) -> None:
    """Not beside the run's file, which may lie anywhere; an absolute path is taken as it is."""
    run = load_run(_written(tmp_path / "elsewhere", base_folder))
    found = _adapter(home / "adapter", run, b"1")
    assert _adapter(tmp_path / "elsewhere" / "adapter", run, b"2") != found
    for start in ("adapter", str(home / "adapter")):
        locked = lock_run(home, _written(tmp_path / "elsewhere", base_folder, start))
        assert (locked.adapter.start_from, locked.adapter.start_sha256) == (start, found)


def test_a_start_that_is_not_there_is_named_with_its_place(home: Path, base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"srv/nothing: no such folder; name an exported adapter"):
        lock_run(home, _written(tmp_path / "elsewhere", base_folder, "nothing"))
