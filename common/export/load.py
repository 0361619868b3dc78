"""A finished adapter, read back from its folder."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.numpy import load
from torch import nn

from confide.common.config.run import RunConfig
from confide.common.config.simulation import AUTO, SpeedSection
from confide.common.config.toml import check
from confide.common.errors import InputError
from confide.common.export.personal import models_of
from confide.common.methods import is_added
from confide.common.model.adapter import build_module, public_name
from confide.common.model.base_models import find_model, hash_model, load_tokenizer, loading
from confide.common.model.devices import choose_device
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.gradients import wrap
from confide.common.protocol.asks import HEAD_FILE, RUN_FILE, WEIGHTS_FILE
from confide.common.protocol.gate import FINISHED_NORM_BOUND, GateError, load_state
from confide.common.tasks.heads import TokenHead
from confide.common.tensors import State, dump_state


class Found(NamedTuple):
    """An exported adapter and the base model that it fits.

    Attributes:
        run: its locked run, with the base that was asked for.
        folder: of the adapter.
        base: folder of the base model.
    """

    run: RunConfig
    folder: Path
    base: Path


def load_adapter(folder: Path, base: str | None = None) -> tuple[RunConfig, WarmModel]:
    """Load an exported adapter, ready to predict, on the fastest device of this machine.

    Args:
        folder: an exported adapter, or a run's folder that holds one as ``adapter/``.
        base: the base model on this machine, if it is not the one that the run names; its hash must be the run's.

    Returns:
        The run (with ``base`` in it) and a model of its own: nothing else shares its weights.

    Raises:
        InputError: there is no adapter, one of its files does not fit, or the base model is another.
    """
    return _load(find_adapter(folder, base), choose_device("auto"), AUTO)


def load_exactly(folder: Path, base: str | None = None) -> tuple[RunConfig, WarmModel]:
    """Load an exported adapter as `load_adapter` does, but with its base in float32, for gradients that add up."""
    return _load(find_adapter(folder, base), choose_device("auto"), SpeedSection(precision="float32"))


def load_for_merging(found: Found) -> tuple[RunConfig, WarmModel]:
    """Load an exported adapter on the CPU, on its base in float32, for a quantised weight takes up no factor."""
    model = found.run.model.model_copy(update={"quantization": "none"})
    found = found._replace(run=found.run.model_copy(update={"model": model}))
    return _load(found, torch.device("cpu"), SpeedSection(precision="float32"))


def find_adapter(folder: Path, base: str | None) -> Found:
    """Find an adapter and its base; arguments and errors as of `load_adapter`."""
    folder, run = find_run(folder)
    if base is not None:
        run = run.model_copy(update={"model": run.model.model_copy(update={"base": base})})
    # Institutions keep base models beside models/STUDY/RUN; a personalised adapter says where its own are.
    known = models_of(folder) or folder.resolve().parent.parent
    places: list[Path | None] = [None] if base else [None, known]
    return Found(run, folder, _find_base(run, places, folder / RUN_FILE))


def _load(found: Found, device: torch.device, speed: SpeedSection) -> tuple[RunConfig, WarmModel]:
    run, folder, base_folder = found
    module = build_module(run, base_folder, device, speed)
    put_adapter(module, folder, run)
    with loading(base_folder) as visible:
        tokenizer = load_tokenizer(visible)
    return run, WarmModel(module, wrap(module), tokenizer, run.task, device)


def _find_base(run: RunConfig, places: list[Path | None], named_by: Path) -> Path:
    """Return the first base model that has the run's name and hash; if there is none, raise the first error."""
    wrong: InputError | None = None
    for models in places:
        try:
            base_folder = find_model(run.model.base, models)
        except InputError as error:
            wrong = wrong or error
            continue
        found = hash_model(base_folder)
        if run.model.sha256 in (None, found):
            return base_folder
        wrong = wrong or InputError(
            f"base model {run.model.base!r} hashes to {found}, but {named_by} names {run.model.sha256}; "
            "the adapter fits that model only: install it, or name its folder with --base"
        )
    raise wrong or InputError(f"{named_by}: no base model")


def find_run(folder: Path) -> tuple[Path, RunConfig]:
    """Return the folder of an exported adapter, which may lie in a run's folder, and its locked run."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name an exported adapter or a run's folder")
    places = [place for place in (folder, folder / "adapter") if (place / RUN_FILE).is_file()]
    if not places:
        raise InputError(
            f"{folder}: holds neither {RUN_FILE} nor adapter/{RUN_FILE}, must be an exported adapter or the folder of "
            "a finished run; a run writes it at its end"
        )
    path = places[0] / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; copy the folder again from its run") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: a JSON {type(content).__name__}, must be an object; copy the folder again from its run"
        )
    return places[0], check(RunConfig, content, str(path))


def put_adapter(module: nn.Module, folder: Path, run: RunConfig) -> None:
    """Put the tensors of an exported adapter into a module of its run.

    These are the trained ones, and the frozen A: a later numpy may draw another. A head of ours is exported for the
    base's states as they are; it becomes one for the states that the module reads.

    Raises:
        InputError: a file is missing, or does not fit the run.
    """
    added = {
        public_name(name): value
        for name, value in module.named_parameters()
        if is_added(name) or (value.requires_grad and not run.task.own_head)
    }
    head = module.plain() if isinstance(module, TokenHead) else {}
    shapes = {name: tuple(value.shape) for name, value in added.items()}
    shapes |= {f"head.{name}": tuple(value.shape) for name, value in head.items()}
    tensors = read_state(module, folder / WEIGHTS_FILE, run)
    if run.task.own_head:
        tensors |= {f"head.{name}": value for name, value in read_tensors(folder / HEAD_FILE).items()}
    try:
        state = load_state(dump_state(tensors), shapes, FINISHED_NORM_BOUND)
    except GateError as error:
        raise InputError(
            f"{folder}: does not fit its {RUN_FILE}: {error}; copy the folder again from its run"
        ) from None
    with torch.no_grad():
        for name, parameter in added.items():
            parameter.copy_(torch.from_numpy(state[name]))
        if isinstance(module, TokenHead):
            module.take({name: torch.from_numpy(state[f"head.{name}"]).to(value) for name, value in head.items()})


def read_state(module: nn.Module, path: Path, run: RunConfig) -> State:
    """Return the tensors of an adapter's file under their names in a state."""
    read = {public_name(name): torch.from_numpy(value) for name, value in read_tensors(path).items()}
    try:
        tensors = run.adapter.from_file(module.encoder, read)
    except (KeyError, RuntimeError, IndexError):
        raise InputError(f"{path}: not of adapter.method = {run.adapter.method!r}; copy the folder again") from None
    return {name: value.cpu().numpy() for name, value in tensors.items()}


def read_tensors(path: Path) -> State:
    """Return the tensors of a file; `InputError` if there is none or they are not float32."""
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; copy the folder again from its run") from None
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not a safetensors file of float32; copy the folder again from its run") from None
