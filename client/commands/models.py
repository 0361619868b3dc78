"""Finished adapters in models/STUDY/RUN/, each checked against the hashes that were written on its full arrival."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from confide.client.answers.finished import HASHES, RUN_FOLDER
from confide.client.config import load_site_config
from confide.client.site.installation import Site
from confide.common.config.run import RunConfig
from confide.common.config.toml import check
from confide.common.errors import InputError
from confide.common.protocol.asks import RUN_FILE


def list_adapters(path: Path) -> list[dict[str, Any]]:
    """Return every adapter that came to a site, with its state and the names of changed or missing files."""
    folders = load_site_config(path).models.dir.glob("*/*/")
    return [
        {"study": folder.parent.name, "run": folder.name, "folder": str(folder), **_state(folder)}
        for folder in sorted(folders)
        if RUN_FOLDER.fullmatch(folder.name)  # base models lie here too
    ]


class Kept(NamedTuple):
    """A finished adapter that is here and whole.

    Attributes:
        study: its study.
        name: of its run, as `confide client models list` shows it.
        folder: of its files.
        run: locked.
    """

    study: str
    name: str
    folder: Path
    run: RunConfig


def find_kept(path: Path, site: Site, model: str) -> Kept:
    """Return the finished adapter that a person names: a study, STUDY/RUN, or its folder.

    Raises:
        InputError: it is none or several of those that came here, it is damaged, or the ledger knows no such run.
    """
    adapters = list_adapters(path)
    found = [each for each in adapters if _is_named(each, model)]
    if len(found) != 1:
        choice = ", ".join(f"{each['study']}/{each['run']}" for each in found or adapters) or "none yet"
        rule = "names several adapters, must name one" if found else "is no finished adapter that came here"
        raise InputError(f"{model!r} {rule}; here: {choice} (`confide client models list`)")
    [each] = found
    if each["state"] != "whole":
        raise InputError(
            f"{each['folder']}: {each['state']}: {', '.join(each['files'])}; ask the server's operator for it again"
        )
    folder = Path(each["folder"])
    run = check(RunConfig, json.loads((folder / RUN_FILE).read_bytes()), str(folder / RUN_FILE))
    reserved = {
        (item.key.study, item.key.lineage[: len(each["run"])], item.run_sha256)
        for item in site.ledger.account().reservations.values()
    }
    if (each["study"], each["run"], run.sha256()) not in reserved:
        raise InputError(
            f"{folder}: this institution's ledger has reserved nothing for this run, so it is another's; name one that "
            "`confide client models list` shows and this dataset took part in"
        )
    return Kept(each["study"], each["run"], folder, run)


def _is_named(adapter: dict[str, Any], model: str) -> bool:
    same_folder = Path(model).resolve() == Path(adapter["folder"]).resolve()
    return same_folder or model in (adapter["study"], f"{adapter['study']}/{adapter['run']}")


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
