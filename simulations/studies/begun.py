"""The start or resumption of a simulation: everything is checked, cheap things first, before its folder is made."""

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from confide.common.config.run import RunConfig, require_base
from confide.common.data.records import Record
from confide.common.errors import InputError
from confide.common.model.base_models import fetch_model, hash_model
from confide.common.model.evaluation import require_readable
from confide.common.model.warm_model import warm_model
from confide.common.scoring.earlier import read_earlier
from confide.server.results.run_directory import RunDirectory
from confide.simulations.data.institutions import load_institutions
from confide.simulations.sites.real_sites import RealSites, read_public_test
from confide.simulations.sites.unfinished import Unfinished


@dataclass(frozen=True)
class Begun:
    """A run on this machine that is ready to be carried out.

    Attributes:
        run: locked.
        directory: holds all files of the run.
        sites: the real sites, else None.
        kept: state from which to go on after an interruption; None on Ray, whose workers keep ledgers of their own.
    """

    run: RunConfig
    directory: RunDirectory
    sites: RealSites | None
    kept: Unfinished | None

    def how_to_go_on(self, site: list[Path], *, baselines: bool) -> str:
        """Return the advice for a user who interrupted the run."""
        if self.kept is None:
            return f"{self.directory.path}/events.jsonl says after which round"
        words = ["confide", "simulate", "--resume", str(self.directory.path)]
        words += [word for path in site for word in ("--site", str(path))]
        return f"`{shlex.join(words + ['--baselines'] * baselines)}` goes on after its last whole round"


def begin(run: RunConfig, out: Path | None, engine: str, sites: RealSites | None) -> Begun:
    """Begin a locked run whose data and sites were checked; a fault of its model shows before the folder is made."""
    model = warm_model(run, run.speed)
    for source, records in _records(run, sites):
        require_readable(model, records, source)
    directory = RunDirectory(out or _free_folder(f"{time.strftime('%Y%m%d-%H%M%S')}-{run.study.name}"), run)
    kept = (
        Unfinished.begin(directory.path, run.places, real_sites=sites is not None) if engine == "in-process" else None
    )
    return Begun(run, directory, sites, kept)


def require_interrupted(path: Path, engine: str, *, real_sites: bool) -> Unfinished:
    """Return the state that an interrupted run left; `InputError` if it is over, or was another kind of run."""
    if RunDirectory.at(path).is_over():
        raise InputError(f"--resume {path}: the run is completed; nothing is left of it to carry out")
    if engine != "in-process":
        raise InputError(f"--resume with --engine {engine} is refused: its workers keep ledgers of their own")
    kept = Unfinished.open(path)
    if kept.real_sites != real_sites:
        raise InputError(
            f"--resume {path}: the run was begun {'with' if kept.real_sites else 'without'} --site; name the same sites"
        )
    return kept


def go_on(run: RunConfig, path: Path, kept: Unfinished, sites: RealSites | None) -> Begun:
    """Go on with an interrupted run; `InputError` for another base model than it began with."""
    require_base(run, hash_model(fetch_model(run.at(run.model.base))))
    warm_model(run, run.speed)
    with kept.alone():
        return Begun(run, RunDirectory.open(path, run), sites, kept)


def _records(run: RunConfig, sites: RealSites | None) -> Iterator[tuple[str, list[Record]]]:
    """Give all records that may be looked at, with the place that they come from: none of a real institution's."""
    yield f"evaluation.earlier = {run.evaluation.earlier!r}", [*map(dict, read_earlier(run, run.evaluation.earlier))]
    if sites:
        yield from ((str(run.evaluation.data), own) for own in read_public_test(run).values())
        return
    found = load_institutions(run)
    for kind, shares in (("test", found.public), ("private", found.private)):
        yield from ((f"{kind} share of {name!r}", own) for name, own in shares.items())


def _free_folder(name: str) -> Path:
    """Make ``runs/NAME``, with a number appended if runs of the same second have taken that name."""
    number, path = 1, Path("runs") / name
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = path.with_name(f"{name}-{number}")
        except OSError as error:
            raise InputError(f"{path} cannot be made: {error.strerror}; choose a folder with --out") from None
        else:
            return path
