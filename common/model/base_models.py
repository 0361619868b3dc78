"""Base models: find one by package, folder or hub id, and hash it."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from confide.common.config.toml import expanded
from confide.common.errors import ConfideError, InputError
from confide.common.model.base_files import CONFIG, PATTERNS, check_files, counted_alone, counted_files, has_weights


def fetch_model(base: str) -> Path:
    """Return the folder of a base model, downloaded first if it is a hub id that is not here yet.

    Raises:
        InputError: nothing of that name is here, or the hub does not give it.
    """
    if base.count("/") == 1 and not expanded(Path(base), "model.base").exists():
        _hub(base, local_files_only=False)
    return find_model(base)


def find_model(base: str, models: Path | None = None) -> Path:
    """Return the folder of a base model on this machine. An institution uses only this: no server makes it download.

    Args:
        base: an installed package that carries a model, a folder, or a hub id ("organisation/name").
        models: an institution's folder of base models; it is searched first, by the last part of the name.

    Raises:
        InputError: nothing of that name is here.
    """
    if models is not None and (models / Path(base).name / CONFIG).is_file():
        return _checked(models / Path(base).name)
    folder = expanded(Path(base), "model.base")
    if (folder / CONFIG).is_file():
        return _checked(folder)
    try:
        spec = importlib.util.find_spec(base) if base.isidentifier() else None
    except ValueError:  # "__main__" has no spec
        spec = None
    if spec and spec.submodule_search_locations:
        # The files only: importing the package would run its code.
        configs = sorted(
            Path(spec.submodule_search_locations[0]).glob(f"**/{CONFIG}"), key=lambda path: len(path.parts)
        )
        if configs:
            return _checked(configs[0].parent)
    if base.count("/") == 1 and not folder.exists():
        return _checked(_hub(base, local_files_only=True))
    raise InputError(
        f"model.base = {base!r} is not an installed package, a folder with {CONFIG}, or a hub id; name the model's "
        "folder, or its hub id as 'organisation/name'"
    )


def models_here(folder: Path) -> Iterator[Path]:
    """Yield folders of base models on this machine: in a folder, in installed packages, in the hub's cache."""
    yield from _with_weights(folder.glob(f"*/{CONFIG}"))
    for distribution in importlib.metadata.distributions():
        files = [file for file in distribution.files or () if file.name == CONFIG]
        yield from _with_weights(Path(str(distribution.locate_file(file))) for file in files)
    from huggingface_hub.constants import HF_HUB_CACHE

    yield from _with_weights(Path(HF_HUB_CACHE).glob(f"models--*/snapshots/*/{CONFIG}"))


def _with_weights(configs: Iterable[Path]) -> Iterator[Path]:
    for folder in (path.parent for path in configs):
        with suppress(InputError):  # a run cannot name a base whose files cannot be hashed
            if has_weights(counted_files(folder)):
                yield folder


def _hub(hub_id: str, *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(PATTERNS), local_files_only=local_files_only))
    except Exception as error:  # noqa: BLE001 - every failure of the hub client means the same to the user
        raise InputError(
            f"model.base = {hub_id!r} is no folder, and the hub does not give it ({type(error).__name__}); "
            "copy the model to a folder and name that folder"
        ) from None


def _checked(folder: Path) -> Path:
    check_files(folder)
    return folder


@contextmanager
def loading(folder: Path) -> Iterator[Path]:
    """Give the folder from which libraries read a model's files; turn their errors into one line for the user.

    Libraries see the files that `hash_model` covers and no others.
    """
    with counted_alone(folder) as visible:
        try:
            yield visible
        except ConfideError:
            raise
        except Exception as error:  # noqa: BLE001 - each architecture has errors of its own
            text = str(error).replace(str(visible), str(folder)).strip() or type(error).__name__
            raise InputError(
                f"model folder {folder} cannot be loaded: {text.splitlines()[0][:200]}; {_remedy(error, text)}"
            ) from None


def load_tokenizer(visible: Path) -> Any:
    """Return the tokenizer of a base model; ``visible`` is the folder that `loading` gives."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(visible, trust_remote_code=False, local_files_only=True)
    tokenizer.truncation_side = "right"  # some cut the beginning; windows and max_length count from it
    return tokenizer


def _remedy(error: Exception, text: str) -> str:
    if isinstance(error, ImportError):
        return "install that, or name another base"
    if isinstance(error, MemoryError) or "memory" in text:
        return "free some memory, or name a smaller base"
    return "copy the model again, or name another base"


def hash_model(folder: Path) -> str:
    """Return SHA-256 over sorted names and hashes of a base model's `counted_files`: weights, configuration, tokenizer.

    Raises:
        InputError: an index of shards names something that is not a safetensors file of this folder.
    """
    digest = hashlib.sha256()
    for path in counted_files(folder):
        with path.open("rb") as file:
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
