"""Finished adapters in models/STUDY/RUN/, each checked against the hashes that were written when it had all arrived."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from confide.client.site_config import load_site_config
from confide.common.durable import replace_durably
from confide.common.errors import PolicyError

HASHES = "sha256.json"
_MOST_OF_STUDY = 20  # a study has one; another for every time that its run was proposed anew
_MOST_BYTES = 8 * 2**30  # of all that came here: a server must not fill the disk
_RUN = re.compile("[0-9a-f]{12}")  # how the lineage of a run begins


def store_adapter(models: Path, study: str, lineage: str, files: dict[str, bytes]) -> None:
    """Keep a run's files, which have been checked; those that came before for the same run are replaced.

    Raises:
        PolicyError: the place is a base model's, or full.
    """
    folder = models / study / lineage[:12]
    if (folder.parent / "config.json").is_file():
        raise PolicyError(f"{folder.parent} is a base model's folder, where no adapter may go; rename it")
    others = [other for other in models.glob("*/*/") if _RUN.fullmatch(other.name) and other != folder]
    of_study = sum(other.parent == folder.parent for other in others)
    if of_study >= _MOST_OF_STUDY:
        raise PolicyError(f"{folder.parent} holds {of_study} finished adapters, the most that are kept; delete some")
    size = sum(map(len, files.values()))
    size += sum(file.stat().st_size for other in others for file in other.iterdir() if file.is_file())
    if size > _MOST_BYTES:
        raise PolicyError(
            f"{models}: finished adapters would take {size:,} bytes, at most {_MOST_BYTES:,}; delete some"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        replace_durably(folder / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    replace_durably(folder / HASHES, json.dumps(hashes, indent=1).encode())


def list_adapters(path: Path) -> list[dict[str, Any]]:
    """Every adapter that came to a site, with its state, and the names of the files that it is not whole for."""
    folders = load_site_config(path).models.dir.glob("*/*/")
    return [
        {"study": folder.parent.name, "run": folder.name, "folder": str(folder), **_state(folder)}
        for folder in sorted(folders)
        if _RUN.fullmatch(folder.name)  # base models lie here too
    ]


def _state(folder: Path) -> dict[str, Any]:
    """Finds damage; whoever may write in the folder could write another list of hashes too."""
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
