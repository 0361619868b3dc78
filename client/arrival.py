"""A finished adapter that arrives: every file is looked at before any of them is kept."""

import re
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict

from confide.client.account import Account
from confide.common.adapter import build_module
from confide.common.errors import ConfideError, PolicyError
from confide.common.export import portable_config
from confide.common.gate import RECEIVED_NORM_BOUND, GateError, State, bounded, load_tensors
from confide.common.messages import Finished
from confide.common.models import find_model
from confide.common.run_config import RunConfig
from confide.common.shown import shown
from confide.common.wire import sha256

_MOST_CARD = 2**20  # bytes of a model card: a line for each institution
_CONFIG, _WEIGHTS, _HEAD, _RUN, _CARD = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "head.safetensors",
    "run.json",
    "README.md",
)
_CONTROL = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f]")  # all but the end of a line; a terminal would obey them
Form = dict[str, tuple[str, tuple[int, ...]]]


def require_taken_part(finished: Finished, account: Account) -> None:
    """`PolicyError` where this ledger never reserved for the run, under this hash and in this lineage."""
    named = (finished.study, finished.lineage, finished.plan_sha256)
    reservations = account.reservations.values()
    if named not in {(item.key.study, item.key.lineage, item.run_sha256) for item in reservations}:
        raise PolicyError(
            f"a finished adapter of study {shown(finished.study, 64)!r} came, lineage {finished.lineage[:12]}: this "
            "ledger has reserved nothing for such a run, so it is not kept"
        )


def check_files(finished: Finished, models: Path) -> dict[str, bytes]:
    """The files to keep of a run that this institution took part in.

    The locked run is the very one of the ledger, by its hash; tensors are exactly those that it makes of its base
    model, float32, finite and bounded; PEFT's configuration, which says what PEFT loads, is written here and not taken
    from the server. The model card alone is the server's word, and a text that no terminal obeys.

    Args:
        finished: of a run that `require_taken_part` has found.
        models: the institution's folder of base models: no weights are read, but their configuration is.

    Raises:
        PolicyError: a file is not what it must be, or there is no base model to compare with.
    """
    what = f"the finished adapter of study {finished.study!r}, lineage {finished.lineage[:12]}, is not kept"
    run = _run_of(finished, what)
    wanted = {_CONFIG, _WEIGHTS, _RUN, _CARD} | ({_HEAD} if run.task.pooling == "mean" else set())
    if finished.files.keys() != wanted:
        raise PolicyError(f"{what}: its files are {sorted(finished.files)}, must be {sorted(wanted)}")
    try:
        module = build_module(run, find_model(run.model.base, models), torch.device("meta"))
    except ConfideError as error:
        raise PolicyError(
            f"{what}: {error}; once the base model is here, `server resume RUN` at the server gives it out again"
        ) from None
    adapted: Any = module.encoder if run.task.pooling == "mean" else module
    try:
        _check_tensors(finished.files, module, adapted)
        _check_card(finished.files[_CARD])
    except GateError as error:
        raise PolicyError(f"{what}: {error}") from None
    return {**finished.files, _CONFIG: portable_config(adapted, run).encode()}


def _run_of(finished: Finished, what: str) -> RunConfig:
    text = finished.files.get(_RUN, b"")
    if sha256(text) != finished.plan_sha256:
        raise PolicyError(f"{what}: {_RUN} is not the run that the ledger knows, {finished.plan_sha256[:12]}")
    return RunConfig.model_validate_json(text)


def _check_tensors(files: dict[str, bytes], module: Any, adapted: Any) -> None:
    """`GateError` where tensors are not those of the model, or not finite and bounded, all together."""
    forms = {_WEIGHTS: _form(get_peft_model_state_dict(adapted, save_embedding_layers=False))}
    if _HEAD in files:
        forms[_HEAD] = _form(module.head.state_dict())
    tensors = State()
    for name, form in forms.items():
        try:
            found = load_tensors(files[name], form)
        except GateError as error:
            raise GateError(f"{name}: {error}") from None
        tensors |= {f"{name} {tensor}": value for tensor, value in found.items()}
    bounded(tensors, RECEIVED_NORM_BOUND)


def _form(tensors: dict[str, torch.Tensor]) -> Form:
    return {name: ("float32", tuple(value.shape)) for name, value in tensors.items()}


def _check_card(card: bytes) -> None:
    if len(card) > _MOST_CARD:
        raise GateError(f"{_CARD}: {len(card):,} bytes, at most {_MOST_CARD:,}")
    try:
        text = card.decode()
    except UnicodeDecodeError:
        raise GateError(f"{_CARD}: not UTF-8") from None
    if _CONTROL.search(text):
        raise GateError(f"{_CARD}: holds characters that control a terminal")
