"""A note of the settings that divided the records of a run, so that a later test holds no record that was trained on.

The key of a unit and `[dataset] validation_fraction` decide on which side it falls. So a fraction that was raised since
would put units into the test that were trained on.
"""

import json
from pathlib import Path
from typing import Any

from confide.client.config import DatasetSection
from confide.common.config.run import RunConfig
from confide.common.durable import replace_durably
from confide.common.errors import ConfideError, InputError

_FRACTION = "validation_fraction"
_DECIDE = {"columns", "labels", "unit", "max_chars", _FRACTION}  # what a key is made of, and the fraction


def in_rounds(run: RunConfig) -> str:
    """Return the name of the note about the rounds of a run."""
    return run.sha256()


def at_home(run: RunConfig) -> str:
    """Return the name of the note about a personalised adapter of a run."""
    return f"{run.sha256()}-at-home"


def note_split(folder: Path, name: str, dataset: DatasetSection) -> None:
    """Note how records are divided now, before anything is computed from them.

    Args:
        folder: of the notes.
        name: of the training: `in_rounds` or `at_home`.
        dataset: the present settings.

    Raises:
        ConfideError: the disk does not take the note, or holds a damaged one.
    """
    path, used = folder / f"{name}.json", _deciding(dataset)
    noted = _read(path)
    if used in noted:
        return
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        replace_durably(path, json.dumps([*noted, used]).encode(), 0o600)
    except OSError as error:
        raise ConfideError(f"{path}: cannot be written: {error.strerror}; free some space") from None


def held_out_fraction(folder: Path, run: RunConfig, dataset: DatasetSection) -> tuple[float, bool]:
    """Return the share of units that nothing here has trained on for a run, and whether its rounds noted that.

    Units below the fraction were held out every time. Without a note, of a run that an older version took part in,
    the present settings count.

    Raises:
        InputError: other settings divided the records, so nobody can tell which were held out.
        ConfideError: the note is damaged.
    """
    now, rounds = _deciding(dataset), _read(folder / f"{in_rounds(run)}.json")
    noted = rounds + _read(folder / f"{at_home(run)}.json")
    for then in noted:
        for name in sorted(_DECIDE - {_FRACTION}):
            if then[name] != now[name]:
                raise InputError(
                    f"dataset.{name} = {now[name]!r}, but it was {then[name]!r} when the run of study "
                    f"{run.study.name!r} was trained: records have moved between training and the held-out share; "
                    "put the old value back for this"
                )
    return min(then[_FRACTION] for then in [now, *noted]), bool(rounds)


def _deciding(dataset: DatasetSection) -> dict[str, Any]:
    settings: dict[str, Any] = dataset.model_dump(mode="json", include=_DECIDE)
    return settings


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        noted = [dict(each) for each in json.loads(path.read_bytes())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError):
        noted = [{}]
    if not all(each.keys() == _DECIDE for each in noted):
        raise ConfideError(
            f"{path}: not a note of how records were divided; delete it: `confide client evaluate` then trusts "
            "[dataset] of site.toml"
        )
    return noted
