"""The values that a run begins with: drawn from its public seed, or those of a finished adapter."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.export.load import find_run, read_state, read_tensors
from confide.common.methods import is_added
from confide.common.model.adapter import get_state, public_name, reset, schema
from confide.common.model.warm_model import WarmModel
from confide.common.protocol.asks import HEAD_FILE, RUN_FILE, WEIGHTS_FILE
from confide.common.protocol.gate import GateError, load_state
from confide.common.tensors import State, dump_state

_BOUND = 1e4  # norm of a start: what clients take from a server is bounded anyway


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
    if run.adapter.start_from is None:
        return get_state(model.module)
    named = with_start(run).adapter.start_from or ""
    folder, before = find_run(Path(run.at(named)).expanduser())
    if before.model.sha256 not in (None, run.model.sha256):
        raise InputError(
            f"adapter.start_from = {named!r} was trained on base model {before.model.base!r} (sha256 "
            f"{str(before.model.sha256)[:12]}), this run has {str(run.model.sha256)[:12]}; use the same base"
        )
    tensors = read_state(model.module, folder / WEIGHTS_FILE, run)
    if run.task.own_head:
        plain = {name: torch.from_numpy(value) for name, value in read_tensors(folder / HEAD_FILE).items()}
        module: Any = model.module
        tensors |= {f"head.{name}": value.numpy() for name, value in module.from_plain(plain).items()}
    _require_same_seed(run, before, model, tensors, named)
    frozen = {public_name(name) for name, value in model.module.named_parameters() if not value.requires_grad}
    trained = {name: value for name, value in tensors.items() if name not in frozen}
    try:
        return load_state(dump_state(trained), schema(model.module), _BOUND)
    except GateError as error:
        raise InputError(
            f"adapter.start_from = {named!r} does not fit this run: {error}; use the same adapter and task sections"
        ) from None


def _require_same_seed(run: RunConfig, before: RunConfig, model: WarmModel, tensors: State, named: str) -> None:
    """Refuse an adapter whose frozen factors are others: institutions draw them from this run's seed."""
    for name, value in model.module.named_parameters():
        public = public_name(name)
        if is_added(name) and not value.requires_grad and public in tensors:
            same = value.shape == tensors[public].shape
            if not same or not np.allclose(value.detach().cpu().numpy(), tensors[public], atol=1e-5):
                raise InputError(
                    f"adapter.start_from = {named!r} has frozen factors of study.seed = {before.study.seed} and rank "
                    f"{getattr(before.adapter, 'rank', '?')}, this run draws others from study.seed = "
                    f"{run.study.seed}; use the same seed and [adapter] settings"
                )
