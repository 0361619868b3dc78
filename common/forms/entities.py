"""Entities: names in a text with a type, as BIO tags of its words, and the rates by which they are counted."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confide.common.forms.labels import NamedCode, find_label, listed, shown
from confide.common.forms.texts import text_problem

OUTSIDE = "O"
# Last lines of a model card's program, which has a ``text`` and in ``found`` the tag of each word by its characters.
AS_TAGS = "print(*(f'{text[first:last]}/{tag}' for (first, last), tag in found.items()))"
AS_SPANS = """import json

spans, before = [], "O"
for (first, last), tag in found.items():
    if tag[0] == "I" and tag[2:] == before[2:]:
        spans[-1]["end"] = last
    elif tag != "O":
        spans.append({"start": first, "end": last, "label": tag[2:]})
    before = tag
spans = [{**span, "text": text[span["start"] : span["end"]]} for span in spans]
print(json.dumps(spans, ensure_ascii=False))"""


def entities(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield type, first and last word of each entity, as conlleval reads BIO: "I-" after another type begins one.

    >>> list(entities(["B-a", "I-a", "I-b", "O", "B-b"]))
    [('a', 0, 1), ('b', 2, 2), ('b', 4, 4)]
    """
    begun: tuple[str, int] | None = None
    for place, tag in enumerate([*tags, OUTSIDE]):
        goes_on = begun is not None and tag == f"I-{begun[0]}"
        if begun is not None and not goes_on:
            yield begun[0], begun[1], place - 1
            begun = None
        if tag != OUTSIDE and not goes_on:
            begun = (tag[2:], place)


def rates(suffix: str, records: list[tuple[set[Any], set[Any], set[Any]]]) -> dict[str, float]:
    """Return precision, recall and F1 from hits, truths and predictions of each record; 0 where nothing is counted."""
    hits, right, found = (sum(len(record[side]) for record in records) for side in range(3))
    return {
        f"precision{suffix}": hits / found if found else 0.0,
        f"recall{suffix}": hits / right if right else 0.0,
        f"f1{suffix}": 2 * hits / (right + found) if right + found else 0.0,
    }


def words_problem(tokens: Any, tags: Any, known: Sequence[str]) -> str | None:
    """Return the fault of words and their tags, or None."""
    tokens, tags = plain(tokens), plain(tags)
    if not isinstance(tokens, list) or not tokens:
        return f"tokens is {tokens!r:.60}, must be a list of words, at least one"
    if problem := next((found for token in tokens if (found := text_problem(token, "a token"))), None):
        return problem
    if not isinstance(tags, list) or len(tags) != len(tokens):
        size = f"of {len(tags)}" if isinstance(tags, list) else "no list"
        return f"tags ({size}) must be a list with one tag for each of the {len(tokens)} tokens"
    wrong = [tag for tag in tags if find_label(tag, known) is None][:1]
    return f"tag {shown(wrong[0])} is not one of {listed(known)}; mend it or add to task.labels" if wrong else None


def span_problem(entity: Any, labels: Sequence[str], size: int) -> str | None:
    """Return the fault of an entity in a text of so many characters, or None."""
    if not isinstance(entity, dict) or not {"start", "end", "label"} <= entity.keys():
        return f"an entity is {entity!r:.60}, must be an object with start, end and label"
    if find_label(entity["label"], labels) is None:
        return f"entity label {shown(entity['label'])} is not one of {listed(labels)}; mend it or add to task.labels"
    start, end = entity["start"], entity["end"]
    if isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= size:
        return None
    return (
        f"an entity stands at {start!r:.60} to {end!r:.60}, must be whole numbers within the {size} characters of its "
        "text"
    )


def spans_problem(text: Any, spans: Any, labels: Sequence[str]) -> str | None:
    """Return the fault of a text and its entities, or None."""
    given = plain(spans)
    if problem := text_problem(text):
        return problem
    if not isinstance(given, list):
        return f"entities is {given!r:.60}, must be a list, [] where the text has none"
    problems = (span_problem(entity, labels, len(text)) for entity in given)
    return next((problem for problem in problems if problem), None)


def spans_of(tags: Sequence[str], text: str, starts: list[int], ends: list[int]) -> list[dict[str, Any]]:
    """Return the entities of a text, as `entities` reads the tags of its words, in the form of a record's.

    >>> spans_of(["O", "I-a", "I-a"], "no one knows", [0, 3, 7], [2, 6, 12])
    [{'start': 3, 'end': 12, 'label': 'a', 'text': 'one knows'}]
    """
    found = [(starts[first], ends[last], label) for label, first, last in entities(tags)]
    return [{"start": start, "end": end, "label": label, "text": text[start:end]} for start, end, label in found]


def ends_within(entity: Any, size: int) -> bool:
    """Return whether an entity ends within so many characters; one of another form stays, for its fault to be named."""
    end = entity.get("end") if isinstance(entity, dict) else None
    return not isinstance(end, int) or end <= size


def tags_of(spans: list[dict[str, Any]], starts: list[int], ends: list[int]) -> list[str]:
    """Return the tag of each word by spans of characters. A word belongs to the span that begins first and meets it.

    >>> tags_of([{"start": 4, "end": 9, "label": "a"}], [0, 4, 7], [3, 6, 9])
    ['O', 'B-a', 'I-a']
    """
    tags, free = [OUTSIDE] * len(starts), 0
    for span in sorted(spans, key=lambda span: span["start"]):
        begun = False
        word = max(free, bisect_right(ends, span["start"]))
        while word < len(starts) and starts[word] < span["end"]:
            tags[word] = f"{'I' if begun else 'B'}-{span['label']}"
            begun, word = True, word + 1
        free = max(free, word if begun else 0)
    return tags


def fitting(tokens: list[Any], max_chars: int, max_tokens: int) -> int:
    """Return how many words, from the first on, fit into so many characters with a blank after each; at least one."""
    left = max_chars
    for number, token in enumerate(tokens[:max_tokens]):
        left -= len(token) + 1 if isinstance(token, str) else 1
        if left < 0:
            return max(1, number)
    return min(len(tokens), max_tokens)


def starts_of(tokens: list[str]) -> list[int]:
    """Return the place of each token in the tokens joined by blanks."""
    starts, place = [], 0
    for token in tokens:
        starts.append(place)
        place += len(token) + 1
    return starts


def plain(value: Any) -> Any:
    """Return a list of a file, which Parquet gives as an array, as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def renamed(answer: Any, names: Mapping[str, str]) -> Any:
    """Return tags or entities with types renamed; whatever has another form stays, for `check` to name.

    A tag that is a number has no B- or I- before its type, so its name is of a whole tag: 1 = "B-person".
    """
    given = plain(answer)
    if not isinstance(given, list):
        return answer
    result: list[Any] = []
    for item in given:
        if isinstance(item, NamedCode):
            item = item.name  # noqa: PLW2901 - a ClassLabel's
        if isinstance(item, str) and item[:2] in ("B-", "I-"):
            result.append(item[:2] + names.get(item[2:], item[2:]))
        elif isinstance(item, dict):
            code = find_label(item.get("label"), names)
            result.append(item if code is None else {**item, "label": names[code]})
        else:
            code = None if isinstance(item, str) else find_label(item, names)
            result.append(item if code is None else names[code])
    return result
