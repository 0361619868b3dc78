"""A run.toml as the locked run that institutions get. It needs torch, which the server's own process never imports."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError
from confide.server.home.home import open_home
from confide.server.home.registry import with_registered_keys


def lock_run(folder: Path, run_file: Path) -> RunConfig:
    """Return a run.toml with the hash of its base model, its targets, and the keys of its institutions.

    Args:
        folder: of the server.
        run_file: relative paths in it start at its own folder, but for files of `evaluation` and `adapter.start_from`,
            which lie in the server's.

    Raises:
        InputError: the file, its base model, or an institution that is not approved here.
    """
    from confide.common.config.run import load_run, lock
    from confide.common.export.start import with_start
    from confide.common.flower import prepare

    opened = open_home(folder)
    loaded = with_registered_keys(load_run(run_file), opened.registry.approved())
    prepare()
    from confide.common.model.base_models import fetch_model, hash_model
    from confide.common.model.families import with_targets

    base = fetch_model(loaded.at(loaded.model.base))
    starts = {path: str(opened.folder / path) for path in [loaded.adapter.start_from] if path}
    return lock(with_start(with_targets(loaded, base).placed(starts)), hash_model(base))


def lock_run_in_child(folder: Path, run_file: Path) -> RunConfig:
    """Do the same in a process of its own; `ConfideError` also if that ends before it is done."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return RunConfig.model_validate_json(pool.submit(_locked, folder, run_file).result())
    except BrokenProcessPool:
        raise ConfideError("the process that reads a run has ended; is there enough memory?") from None


def _locked(folder: Path, run_file: Path) -> str:
    return lock_run(folder, run_file).canonical_json()
