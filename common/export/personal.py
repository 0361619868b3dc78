"""The mark of a personalised adapter in its files: it is not private, and never leaves its institution.

The mark is a field of both safetensors files. So it stays with the weights wherever the folder is copied to.
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from confide.common.errors import InputError
from confide.common.protocol.asks import WEIGHTS_FILE

_MARK, _MODELS = "confide", "models"  # fields of the files
PERSONALISED = "personalised: not private, never leaves"


def mark(models: Path) -> dict[str, str]:
    """Return the fields for the files of a personalised adapter; ``models`` is its institution's folder of bases."""
    return {_MARK: PERSONALISED, _MODELS: str(models.absolute())}


def is_personalised(folder: Path) -> bool:
    """Return whether the adapter of a folder bears the mark."""
    return _fields(folder).get(_MARK) == PERSONALISED


def models_of(folder: Path) -> Path | None:
    """Return the folder of base models that a personalised adapter names; None for any other adapter."""
    fields = _fields(folder)
    return Path(fields[_MODELS]) if fields.get(_MARK) == PERSONALISED and _MODELS in fields else None


def require_shareable(folder: Path) -> None:
    """Raise `InputError` for a personalised adapter, which nobody hands out."""
    if is_personalised(folder):
        raise InputError(
            f"{folder}: a personalised adapter is not private and never leaves, so it is not exported; use it here "
            "with `confide predict`, or export the adapter that it began with"
        )


def _fields(folder: Path) -> dict[str, str]:
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):  # whoever reads the adapter says what is wrong with it
        return {}
