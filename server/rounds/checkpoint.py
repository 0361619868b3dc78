"""Checkpoints of rounds, saved atomically: rounds/0007/{adapter,training}.safetensors, state.json with hashes."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from confide.common.durable import sync_folder, write_durably
from confide.common.errors import ConfideError
from confide.common.failpoints import failpoint
from confide.common.protocol.versions import PROTOCOL
from confide.common.tensors import State, dump_state
from confide.common.training.optimizer import GlobalState

_KINDS = ("average", "first", "second")
KEPT = 2  # rounds on disk: the last, and the one before in case the last is damaged


def save_round(rounds: Path, number: int, state: GlobalState, accepted: list[dict[str, str]], lineage: str) -> Path:
    """Write the state after a round: temporary folder, fsync, rename, fsync of the parent. Then drop old rounds.

    Args:
        rounds: the run's folder ``rounds/``.
        number: number of the round. Rounds without a quorum count, but leave no folder.
        state: the server's training state; ``adapter.safetensors`` holds the global adapter.
        accepted: ``{"institution", "payload_sha256"}`` of every update in it.
        lineage: lineage of the run.

    Returns:
        The round's folder.
    """
    folder = rounds / f"{number:04d}"
    temporary = rounds / f".{folder.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    failpoint("checkpoint-begun")
    training: State = {
        f"{kind}/{name}": value
        for kind, tensors in zip(_KINDS, (state.average, state.first, state.second), strict=True)
        for name, value in tensors.items()
    }
    files = {"adapter.safetensors": dump_state(state.adapter), "training.safetensors": dump_state(training)}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    content: dict[str, Any] = {"round": number, "applied": state.round, "lineage": lineage, "protocol": PROTOCOL}
    content |= {"files": hashes, "accepted": accepted}
    files["state.json"] = json.dumps(content, indent=1).encode()
    for name, data in files.items():
        write_durably(temporary / name, data)
    sync_folder(temporary)
    failpoint("checkpoint-written")
    replaced = rounds / f".{folder.name}.old"
    if folder.exists():  # damaged; it stays until the new one is there, for it lists the accepted updates
        folder.rename(replaced)
    failpoint("checkpoint-removed")
    temporary.rename(folder)
    failpoint("checkpoint-renamed")
    sync_folder(rounds)
    failpoint("checkpoint-synced")
    shutil.rmtree(replaced, ignore_errors=True)
    numbers = sorted(int(path.name) for path in rounds.iterdir() if path.name.isdigit())
    for old in numbers[:-KEPT]:
        shutil.rmtree(rounds / f"{old:04d}")
    failpoint("checkpoint-kept")
    return folder


@dataclass(frozen=True)
class Saved:
    """A round as it was saved.

    Attributes:
        number: number of the round.
        state: the server's training state after it.
        accepted: ``{"institution", "payload_sha256"}`` of every update in it.
    """

    number: int
    state: GlobalState
    accepted: list[dict[str, str]]


def load_last(rounds: Path, lineage: str) -> tuple[Saved | None, dict[int, list[dict[str, str]]]]:
    """Return the last whole round, and the accepted updates of later rounds whose tensors are damaged.

    The server repeats a damaged round and takes only the payloads that it accepted then. Institutions send them again
    from their outbox, at no charge.

    Raises:
        ConfideError: a ``state.json`` is unreadable, so the accepted updates are unknown; or no round is whole; or the
            run is of another protocol, under which the same tensors are another model.
    """
    damaged: dict[int, list[dict[str, str]]] = {}
    _put_back(rounds)
    folders = sorted((path for path in rounds.glob("*") if path.name.isdigit()), key=lambda path: -int(path.name))
    for folder in folders:
        try:
            facts = json.loads((folder / "state.json").read_bytes())
            number, accepted = int(facts["round"]), list(facts["accepted"])
            if facts["lineage"] != lineage:
                raise ValueError("another run")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfideError(
                f"{folder / 'state.json'} cannot be read ({error}); put it back from a backup. Without it round "
                f"{folder.name} would have to be trained again, and every institution would spend its steps twice"
            ) from None
        if facts.get("protocol") != PROTOCOL:
            raise ConfideError(
                f"{folder} is of protocol {facts.get('protocol', 'before 3')!r}, this one has {PROTOCOL}: its adapter "
                "would be another model; resume the run with the version that began it, or begin another study"
            )
        state = _read_state(folder, facts)
        if state is not None:
            return Saved(number, state, accepted), damaged
        damaged[number] = accepted
    if damaged:
        raise ConfideError(f"{rounds}: no round is whole; put one back from a backup, or begin another study")
    return None, {}


def _put_back(rounds: Path) -> None:
    """Clean up after a crash during the replacement of a round: keep the old one only if no new one exists."""
    for replaced in rounds.glob(".*.old"):
        folder = rounds / replaced.name[1:].removesuffix(".old")
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(folder)


def _read_state(folder: Path, facts: dict[str, Any]) -> GlobalState | None:
    """Return the state of a round; None if a file differs from the one that was written."""
    try:
        files = {name: (folder / name).read_bytes() for name in facts["files"]}
        if any(hashlib.sha256(files[name]).hexdigest() != value for name, value in facts["files"].items()):
            return None
        adapter, training = load(files["adapter.safetensors"]), load(files["training.safetensors"])
        parts = {kind: {name: training[f"{kind}/{name}"] for name in adapter} for kind in _KINDS}
        return GlobalState(adapter, parts["average"], parts["first"], parts["second"], int(facts["applied"]))
    except (OSError, KeyError, ValueError, SafetensorError):
        return None
