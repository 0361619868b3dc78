"""The values that a run begins with: drawn from its public seed, or those of a finished adapter.

The guarantee holds for any weights that a round begins with, so also for these: an institution clips and noises what it
computes from them as it does from any others. They are fixed before this run reads a record, so it charges nothing for
them. Of what the finished adapter gives away the run that made it speaks.
"""

import hashlib
from pathlib import Path

import numpy as np

from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.export.load import find_run, put_adapter
from confide.common.export.personal import require_shareable
from confide.common.methods import is_added
from confide.common.model.adapter import get_state, public_name, reset
from confide.common.model.warm_model import WarmModel
from confide.common.protocol.asks import HEAD_FILE, RUN_FILE, WEIGHTS_FILE
from confide.common.tensors import State

_LENGTHS = {"max_length", "max_windows", "max_new_tokens"}  # of texts; these may differ from run to run


def with_start(run: RunConfig) -> RunConfig:
    """Return a run that names the hash of the adapter which it goes on from; the same run without such an adapter.

    Raises:
        InputError: there is no adapter, or one of another hash than the run names.
    """
    adapter = run.adapter
    if adapter.start_from is None:
        if adapter.start_sha256:
            raise InputError("adapter.start_sha256 is set, but adapter.start_from names no adapter; set both or none")
        return run
    found = hash_adapter(Path(run.at(adapter.start_from)).expanduser())
    if adapter.start_sha256 not in (None, found):
        raise InputError(
            f"adapter.start_sha256 = {adapter.start_sha256}, but the files of {adapter.start_from!r} hash to {found}; "
            "name the adapter that the study goes on from, or correct the run"
        )
    return run.model_copy(update={"adapter": adapter.model_copy(update={"start_sha256": found})})


def hash_adapter(folder: Path) -> str:
    """Return the hash of an exported adapter's tensors and of its locked run; `InputError` if there is none."""
    folder, _ = find_run(folder)
    require_shareable(folder)  # a start is sent to every institution
    digest = hashlib.sha256()
    for name in (RUN_FILE, WEIGHTS_FILE, HEAD_FILE):
        if (folder / name).is_file():
            data = (folder / name).read_bytes()
            digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def initial_state(run: RunConfig, model: WarmModel) -> State:
    """Return the adapter before the first round; the model holds start values from the public seed afterwards.

    Raises:
        InputError: the adapter to go on from is of another base, task or method, or was drawn from another seed.
    """
    reset(model.module, run.study.seed)
    named = run.adapter.start_from
    if named is None:
        return get_state(model.module)
    with_start(run)  # its files are still those that the run names
    folder, before = find_run(Path(run.at(named)).expanduser())
    if before.model.sha256 not in (None, run.model.sha256):
        raise InputError(
            f"adapter.start_from = {named!r} was trained on base model {before.model.base!r} (sha256 "
            f"{str(before.model.sha256)[:12]}), this run has {str(run.model.sha256)[:12]}; use the same base"
        )
    _require_same_sections(run, before, named)
    drawn = _frozen(model)
    try:
        put_adapter(model.module, folder, run)
        _require_same(drawn, _frozen(model), before, run)
        return get_state(model.module)
    except InputError as error:
        raise InputError(
            f"adapter.start_from = {named!r} does not fit this run ({error}); use the same [adapter] and [task]"
        ) from None
    finally:
        reset(model.module, run.study.seed)


def _require_same_sections(run: RunConfig, before: RunConfig, named: str) -> None:
    """Refuse an adapter whose numbers mean something else here: labels in another order, or another scale."""
    mine, theirs = (
        {
            "adapter": {name: value for name, value in each.adapter if name not in ("start_from", "start_sha256")},
            "task": {name: value for name, value in each.task if name not in _LENGTHS},
        }
        for each in (run, before)
    )
    for section in mine:
        for name in sorted(mine[section].keys() | theirs[section].keys()):
            here, there = mine[section].get(name), theirs[section].get(name)
            if here != there:
                raise InputError(
                    f"adapter.start_from = {named!r} was trained with {section}.{name} = {there!r}, this run has "
                    f"{here!r}; use the same [adapter] and [task]"
                )


def _frozen(model: WarmModel) -> State:
    """Return a copy of what the method adds and does not train: A."""
    named = model.module.named_parameters()
    return {
        public_name(name): value.detach().cpu().numpy().copy()
        for name, value in named
        if is_added(name) and not value.requires_grad
    }


def _require_same(drawn: State, found: State, before: RunConfig, run: RunConfig) -> None:
    """Refuse an adapter whose frozen factors are others: institutions draw them from this run's seed."""
    for name, value in drawn.items():
        if not np.allclose(value, found[name], atol=1e-5):
            raise InputError(
                f"its frozen factors are of study.seed = {before.study.seed}, this run draws others from "
                f"study.seed = {run.study.seed}; use the same seed"
            )
