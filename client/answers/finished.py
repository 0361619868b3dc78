"""The answer to a finished adapter: check every file, then keep them all in models/STUDY/RUN/ with their hashes."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from flwr.app import RecordDict

from confide.client.answers.agreement import acknowledge_receipt
from confide.client.privacy.account import Account
from confide.client.privacy.sum_shares import end_shares
from confide.client.site.installation import Site
from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig
from confide.common.durable import replace_durably
from confide.common.errors import ConfideError, PolicyError
from confide.common.export.write import FIELDS, file_tensors, portable_config
from confide.common.model.adapter import build_module
from confide.common.model.base_models import find_model
from confide.common.protocol.asks import CARD_FILE, CONFIG_FILE, HEAD_FILE, RUN_FILE, WEIGHTS_FILE, Finished
from confide.common.protocol.gate import FINISHED_NORM_BOUND, GateError, bounded, fields_of, load_tensors
from confide.common.protocol.wire import sha256
from confide.common.shown import shown
from confide.common.tensors import State

_MAX_CARD = 2**20  # bytes of a model card: a line for each institution
HASHES = "sha256.json"
_MAX_OF_STUDY = 20  # a study has one; another for every time that its run was proposed anew
_MAX_BYTES = 8 * 2**30  # of all that came here: a server must not fill the disk
RUN_FOLDER = re.compile("[0-9a-f]{12}")  # how the lineage of a run begins
_CONTROL = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f]")  # all but the end of a line; a terminal would obey them
Form = dict[str, tuple[str, tuple[int, ...]]]


def keep_adapter(content: RecordDict, site: Site, client: ClientProcess) -> RecordDict:
    """Keep a finished adapter in ``models/``, for a run that this institution's ledger has reserved for."""
    finished = Finished.from_content(content)
    acknowledge_receipt(finished, site)
    client.finish(site.config.institution.name, finished.run_sha256)
    require_taken_part(finished, site.ledger.account())
    end_shares(finished.lineage, site.ledger, site.outbox, site.shares)
    if site.models is None:
        raise PolicyError(f"a finished adapter of study {finished.study!r} came to a simulation, which keeps none")
    store_adapter(site.models, finished.study, finished.lineage, check_files(finished, site.models))
    return RecordDict()


def require_taken_part(finished: Finished, account: Account) -> None:
    """`PolicyError` where this ledger never reserved for the run, under this hash and in this lineage."""
    named = (finished.study, finished.lineage, finished.run_sha256)
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
    try:
        module: Any = build_module(run, find_model(run.model.base, models), torch.device("meta"))
    except ConfideError as error:
        raise PolicyError(
            f"{what}: {error}; once the base model is here, `server resume RUN` at the server gives it out again"
        ) from None
    config = portable_config(module.encoder, run)
    wanted = {WEIGHTS_FILE, RUN_FILE, CARD_FILE} | ({HEAD_FILE} if run.task.own_head else set())
    wanted |= {CONFIG_FILE} if config else set()
    if finished.files.keys() != wanted:
        raise PolicyError(f"{what}: its files are {sorted(finished.files)}, must be {sorted(wanted)}")
    try:
        _check_tensors(finished.files, module, run)
        _check_card(finished.files[CARD_FILE])
    except GateError as error:
        raise PolicyError(f"{what}: {error}") from None
    return finished.files | ({CONFIG_FILE: config.encode()} if config else {})


def _run_of(finished: Finished, what: str) -> RunConfig:
    text = finished.files.get(RUN_FILE, b"")
    if sha256(text) != finished.run_sha256:
        raise PolicyError(f"{what}: {RUN_FILE} is not the run that the ledger knows, {finished.run_sha256[:12]}")
    return RunConfig.model_validate_json(text)


def _check_tensors(files: dict[str, bytes], module: Any, run: RunConfig) -> None:
    """`GateError` where tensors are not those of the model, or not finite and bounded, all together."""
    forms = {WEIGHTS_FILE: _form(file_tensors(module, run))}
    if HEAD_FILE in files:
        forms[HEAD_FILE] = _form(module.plain())
    tensors = State()
    for name, form in forms.items():
        try:
            found = load_tensors(files[name], form)
        except GateError as error:
            raise GateError(f"{name}: {error}") from None
        if fields := fields_of(files[name]).items() - FIELDS.items():  # words of the server, which our tools would read
            raise GateError(f"{name}: holds other fields than the format's: {shown(str(dict(fields)), 64)}")
        tensors |= {f"{name} {tensor}": value for tensor, value in found.items()}
    bounded(tensors, FINISHED_NORM_BOUND)


def _form(tensors: dict[str, torch.Tensor]) -> Form:
    return {name: ("float32", tuple(value.shape)) for name, value in tensors.items()}


def _check_card(card: bytes) -> None:
    if len(card) > _MAX_CARD:
        raise GateError(f"{CARD_FILE}: {len(card):,} bytes, at most {_MAX_CARD:,}")
    try:
        text = card.decode()
    except UnicodeDecodeError:
        raise GateError(f"{CARD_FILE}: not UTF-8") from None
    if _CONTROL.search(text):
        raise GateError(f"{CARD_FILE}: holds characters that control a terminal")


def store_adapter(models: Path, study: str, lineage: str, files: dict[str, bytes]) -> None:
    """Keep a run's files, which have been checked; those that came before for the same run are replaced.

    Raises:
        PolicyError: the place is a base model's, or full.
    """
    folder = models / study / lineage[:12]
    if (folder.parent / "config.json").is_file():
        raise PolicyError(f"{folder.parent} is a base model's folder, where no adapter may go; rename it")
    others = [other for other in models.glob("*/*/") if RUN_FOLDER.fullmatch(other.name) and other != folder]
    of_study = sum(other.parent == folder.parent for other in others)
    if of_study >= _MAX_OF_STUDY:
        raise PolicyError(f"{folder.parent} holds {of_study} finished adapters, the most that are kept; delete some")
    size = sum(map(len, files.values()))
    size += sum(file.stat().st_size for other in others for file in other.iterdir() if file.is_file())
    if size > _MAX_BYTES:
        raise PolicyError(f"{models}: finished adapters would take {size:,} bytes, at most {_MAX_BYTES:,}; delete some")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        replace_durably(folder / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    replace_durably(folder / HASHES, json.dumps(hashes, indent=1).encode())
