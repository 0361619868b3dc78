"""Paths in a run.toml: they count from its own folder, like those of a site.toml.

The run that institutions agree to holds these paths as they are written: a study is the same wherever its file lies.
"""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("confide")


def find_places(run_file: Path, paths: Mapping[str, str | None]) -> dict[str, str]:
    """Return the full paths of those files that stand beside a run.toml and would not be found as they are written.

    Args:
        run_file: the run.toml.
        paths: key -> the path or name that the file gives.
    """
    places, folder = {}, run_file.absolute().parent
    for key, text in paths.items():
        if text is None or text.startswith("~") or folder == Path.cwd():
            continue
        place = folder / text
        if _is_there(key, place):
            places[text] = str(place)
    return places


def _is_there(key: str, place: Path) -> bool:
    """Return whether a key's path is beside the run's file: a base, an adapter, or data."""
    if key == "model.base":
        return (place / "config.json").is_file()
    return place.is_dir() if key == "adapter.start_from" else _is_data(place)


def _is_data(place: Path) -> bool:
    """Return whether a path is data, and not just any folder: a name of built-in data could be a folder's too."""
    return (place.suffix != "" and place.exists()) or is_saved_dataset(place) or any(place.glob("*.parquet"))


def place_of(text: str, places: Mapping[str, str]) -> str:
    """Return the place of a run's path: beside the run's file if it is there, else the path itself, from here."""
    place = places.get(text, text)
    if place != text and Path(text).exists() and Path(text).absolute() != Path(place):
        _tell_both(text, str(Path(place[: -len(text)])))
    return place


@functools.cache
def _tell_both(text: str, folder: str) -> None:
    log.warning(
        "%r is both in %s and in %s: the first is used, for paths of a run.toml count from its own folder",
        text,
        folder,
        Path.cwd(),
    )


SAVED_DATASET, SAVED_SPLITS = "state.json", "dataset_dict.json"


def is_saved_dataset(path: Path) -> bool:
    """Return whether a path is a folder that ``save_to_disk`` made, of a dataset or of its splits."""
    return any((path / name).is_file() for name in (SAVED_DATASET, SAVED_SPLITS))
