"""Finished adapters in models/STUDY/RUN/, each checked against the hashes that were written on its full arrival."""

import hashlib
import json
from pathlib import Path
from typing import Any

from confide.client.answers.finished import HASHES, RUN_FOLDER
from confide.client.config import load_site_config


def list_adapters(path: Path) -> list[dict[str, Any]]:
    """Return every adapter that came to a site, with its state and the names of changed or missing files."""
    folders = load_site_config(path).models.dir.glob("*/*/")
    return [
        {"study": folder.parent.name, "run": folder.name, "folder": str(folder), **_state(folder)}
        for folder in sorted(folders)
        if RUN_FOLDER.fullmatch(folder.name)  # base models lie here too
    ]


def _state(folder: Path) -> dict[str, Any]:
    """Find damage, not attacks: a person who may write in the folder could write another list of hashes too."""
    try:
        hashes = dict(json.loads((folder / HASHES).read_bytes()))
    except FileNotFoundError:
        return {"state": "incomplete", "files": [HASHES]}
    except (ValueError, TypeError):
        return {"state": "changed", "files": [HASHES]}
    missing = [name for name in hashes if not (folder / name).is_file()]
    changed = [name for name in hashes if name not in missing and _sha256(folder / name) != hashes[name]]
    return {"state": "changed" if changed else "incomplete" if missing else "whole", "files": changed + missing}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
