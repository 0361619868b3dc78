"""Explanations as text for a terminal: words that speak for a value in green, against it in red."""

import os
import unicodedata
from collections.abc import Iterator
from itertools import chain
from typing import Any

from confide.common.shown import shown

_STRONGEST = 5
MAX_CHARS = 20_000  # of a text


def names_of(explained: dict[str, Any]) -> str:
    """Return the name of an explained value: its label, entity or score."""
    if "entity" in explained:
        return f"{explained['entity']} (words {explained['first_word']} to {explained['last_word']})"
    return explained["label"] if "label" in explained else f"score {explained['score']:g}"


def strength(tokens: list[dict[str, Any]]) -> float:
    """Return the largest share of a token, whatever its sign; 1 if all are 0."""
    return max((abs(token["attribution"]) for token in tokens), default=0.0) or 1.0


def pieces(text: str, tokens: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Yield a text in pieces with the share of each, as a part of the largest; what is no token has none.

    >>> list(pieces("a bad", [{"start": 2, "end": 5, "attribution": -2.0}]))
    [('a ', 0.0), ('bad', -1.0)]
    """
    place, most = 0, strength(tokens)
    for token in tokens:
        if token["start"] > place:
            yield text[place : token["start"]], 0.0
        if token["end"] > place:
            yield text[max(place, token["start"]) : token["end"]], token["attribution"] / most
        place = max(place, token["end"])
    if place < len(text):
        yield text[place:], 0.0


def words_of(text: str, tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tokens of a text with the pieces of each word as one, which has the sum of their shares.

    A word is a run of letters, their marks and digits. From U+2E80 on (Chinese, Japanese, Korean) signs stay apart.

    >>> parts = [("e", 0, 1.5), ("zen", 1, 0.5), (",", 4, 0.1)]
    >>> tokens = [{"text": t, "start": s, "end": s + len(t), "attribution": a} for t, s, a in parts]
    >>> [(word["text"], word["attribution"]) for word in words_of("ezen, a", tokens)]
    [('ezen', 2.0), (',', 0.1)]
    """
    words = list[dict[str, Any]]()
    for token in tokens:
        start, end, last = token["start"], token["end"], words[-1] if words else None
        if last and (start < last["end"] or (start == last["end"] < end and _is_within_word(text, start))):
            end, share = max(end, last["end"]), last["attribution"] + token["attribution"]
            words[-1] = {**last, "text": text[last["start"] : end], "end": end, "attribution": share}
        else:
            words.append(token)
    return words


def _is_within_word(text: str, place: int) -> bool:
    return all(unicodedata.category(sign)[0] in "LMN" and sign < "\u2e80" for sign in text[place - 1 : place + 1])


def coloured(texts: dict[str, str], explained: dict[str, Any]) -> str:
    """Return one explained value: its name and strongest words, then its texts in colours."""
    words = {
        column: words_of(text, [token for token in explained["tokens"] if token["column"] == column])
        for column, text in texts.items()
    }
    first = sorted(chain(*words.values()), key=lambda word: -abs(word["attribution"]))[:_STRONGEST]
    strongest = ", ".join(f"{shown(word['text'].strip(), 40)} {word['attribution']:+.3g}" for word in first)
    lines = [
        f"{shown(names_of(explained), 100)}: {explained['value']:.3g}, of padding {explained['baseline']:.3g}; "
        + strongest
    ]
    for column, text in texts.items():
        lines.append("  " + "".join(_painted(piece, share) for piece, share in pieces(text, words[column])))
    return "\n".join(lines)


def _painted(piece: str, share: float) -> str:
    """Return a piece on a green or red ground, the stronger its share the brighter; a faint one stays as it is.

    Where NO_COLOR is set (no-color.org), the share stands behind the piece instead.
    """
    level = round(abs(share) * 4)
    text = shown(piece, MAX_CHARS)
    if not level:
        return text
    if os.environ.get("NO_COLOR"):
        return f"{text}[{share:+.2f}]"
    ground = (22, 28, 34, 40)[level - 1] if share > 0 else (52, 88, 124, 160)[level - 1]
    return f"\x1b[48;5;{ground}m\x1b[97m{text}\x1b[0m"
