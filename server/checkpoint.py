"""A round on disk, atomically: rounds/0007/{adapter,training}.safetensors and state.json, which hashes them."""

import hashlib
import json
import shutil
from pathlib import Path

from confide.common.durable import sync_folder, write_durably
from confide.common.gate import State, dump_state
from confide.server.optimizer import GlobalState

KEPT = 2  # rounds that stay on disk: the last, and the one before in case the last is damaged


def save_round(rounds: Path, number: int, state: GlobalState, accepted: list[dict[str, str]], lineage: str) -> Path:
    """Write the state after a round: temporary folder, fsync, rename, fsync of the parent; then drop old rounds.

    Args:
        rounds: the run's folder ``rounds/``.
        number: of the round; rounds without a quorum count, and leave no folder.
        state: the server's training state; ``adapter.safetensors`` holds the global adapter.
        accepted: ``{"institution", "payload_sha256"}`` of every update in it.
        lineage: of the run.

    Returns:
        The round's folder.
    """
    folder = rounds / f"{number:04d}"
    temporary = rounds / f".{folder.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    training: State = {
        f"{kind}/{name}": value
        for kind, tensors in (("average", state.average), ("first", state.first), ("second", state.second))
        for name, value in tensors.items()
    }
    files = {"adapter.safetensors": dump_state(state.adapter), "training.safetensors": dump_state(training)}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    content = {"round": number, "applied": state.round, "lineage": lineage, "files": hashes, "accepted": accepted}
    files["state.json"] = json.dumps(content, indent=1).encode()
    for name, data in files.items():
        write_durably(temporary / name, data)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    sync_folder(rounds)
    numbers = sorted(int(path.name) for path in rounds.iterdir() if path.name.isdigit())
    for old in numbers[:-KEPT]:
        shutil.rmtree(rounds / f"{old:04d}")
    return folder
