"""The files that decide what a base model computes. They are hashed, and nothing else of its folder is read."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confide.common.errors import InputError

CONFIG, WEIGHTS = "config.json", "*.safetensors"
# Weights, configuration, and the vocabularies of all tokenizers that transformers knows ("*.codes": PhoBERT, "*.spm":
# Marian, "*.tokenizer": ProphetNet), and the chat template. A folder without the last four kinds hashes as it did
# before they were added.
PATTERNS = ("*.json", WEIGHTS, "*.txt", "*.model", "*.codes", "*.spm", "*.tokenizer", "chat_template.jinja")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_INDEX = "*.safetensors.index.json"


def counted_files(folder: Path) -> list[Path]:
    """Return the files that decide what a base model computes, sorted: those of `PATTERNS`, and shards in subfolders.

    A link counts as the file to which it leads (the hub's cache consists of such links).

    Raises:
        InputError: an index of shards names something that is not a safetensors file of this folder.
    """
    files = {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    for index in folder.glob(_INDEX):
        files.update(folder / shard for shard in _shards(index) if (folder / shard).is_file())
    return sorted(files)


def has_weights(counted: list[Path]) -> bool:
    """Return whether weights are among the counted files."""
    return any(path.match(WEIGHTS) for path in counted)


def _shards(index: Path) -> set[str]:
    shards = _read(index).get("weight_map")
    if not isinstance(shards, dict):
        raise InputError(f"{index}: weight_map is missing, must say which file holds each tensor; copy the model again")
    for shard in shards.values():
        inside = isinstance(shard, str) and ".." not in Path(shard).parts and not Path(shard).is_absolute()
        if not inside or not Path(shard).match(WEIGHTS):
            raise InputError(
                f"{index}: weight_map names {shard!r}, must be a {WEIGHTS} file inside the model folder, for nothing "
                "else is hashed; copy the model again"
            )
    return set(shards.values())


@contextmanager
def counted_alone(folder: Path) -> Iterator[Path]:
    """Make a folder that holds links to the counted files and nothing else.

    So transformers does not see the other files that it would read: code, other formats, an adapter, more templates.
    """
    with tempfile.TemporaryDirectory(prefix="confide-base-") as place:
        for path in counted_files(folder):
            link = Path(place) / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
        yield Path(place)


def check_files(folder: Path) -> None:
    """Refuse a folder that is no base model, or one that leads a reader to other files than its counted ones.

    Raises:
        InputError: names the fault.
    """
    counted = counted_files(folder)
    if not has_weights(counted):
        raise InputError(f"model folder {folder} holds no {WEIGHTS} file; other formats can run code when loaded")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise InputError(f"model folder {folder} holds no tokenizer ({', '.join(_TOKENIZERS)}); copy it there")
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"model folder {folder} holds adapter_config.json: it is an adapter, or has one laid over it, must be a "
            "base model alone; merge the adapter into its base, or copy the base without adapter_* files"
        )
    _check_unquantised(folder, _read(folder / CONFIG))
    if (folder / "tokenizer_config.json").is_file():
        _check_tokenizer(folder, _read(folder / "tokenizer_config.json"), {path.name for path in counted})


def _check_unquantised(folder: Path, config: dict[str, Any]) -> None:
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if found := part.get("quantization_config") or part.get("quantization"):
            method = found.get("quant_method", "unnamed") if isinstance(found, dict) else found
            raise InputError(
                f"model folder {folder}: {CONFIG} names a quantization_config ({method}), but quantised weights are "
                "not supported; name an unquantised base"
            )


def _check_tokenizer(folder: Path, config: dict[str, Any], counted: set[str]) -> None:
    """Refuse vocabularies in other places. A path that leads nowhere, left behind by an older library, does no harm."""
    for key in (key for key in config if key.endswith(("_file", "_files"))):
        for name in config[key] if isinstance(config[key], list) else [config[key]]:
            if not isinstance(name, str) or not name or name in counted:
                continue
            # Path's own exists() raises if it may not look there.
            if os.path.exists(folder / name) or os.path.exists(name):
                raise InputError(
                    f"{folder / 'tokenizer_config.json'}: {key} names {name!r}, must be a hashed file of the model "
                    "folder itself; remove that line"
                )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; copy the model again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON {type(content).__name__}, must be an object; copy the model again")
    return content
