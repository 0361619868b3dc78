"""People's names with the kinds of their parts: probablepeople's training data, which its source archive carries."""

from xml.etree import ElementTree

from confide.common.data.records import Record
from confide.simulations.data.packaged import distinct, find_packaged

PACKAGE = "probablepeople==0.5.6"  # 0.6 MB
REMEDY = f"make texts unpacks them from the source archive of {PACKAGE}"
_ASKED = {
    "GivenName": "What is the given name?",
    "Surname": "What is the surname?",
    "MiddleName": "What is the middle name?",
    "MiddleInitial": "What is the middle initial?",
    "Nickname": "What is the nickname?",
    "SuffixGenerational": "What says which generation it is?",
}
_USUAL = {"GivenName", "Surname"}


def read_name_parts() -> list[Record]:
    """Read names of two words or more.

    Returns:
        Rows with "tokens", "tags" (as "B-Surname"; words of one kind in a row are one part), "text" and "labels" (kinds
        of its parts beside given name and surname, which almost every name has).
    """
    return [
        {
            "tokens": [word for word, _ in name],
            "text": " ".join(word for word, _ in name),
            "labels": sorted({kind for _, kind in name} - _USUAL),
            "tags": [f"{'I' if at and name[at - 1][1] == kind else 'B'}-{kind}" for at, (_, kind) in enumerate(name)],
        }
        for name in _read()
    ]


def read_name_questions() -> list[Record]:
    """Read questions about names. All questions about one name are of one group.

    Returns:
        Rows with "context" (the name), "question", "answers" and "name" (the group).
    """
    return [row for name in _read() for row in _questions(name)]


def _read() -> list[list[tuple[str, str]]]:
    """Return the words of each name with their kinds."""
    path = find_packaged("name_data", "labeled/person_labeled.xml", REMEDY)
    root = ElementTree.parse(path).getroot()  # noqa: S314 - of a package that the user installed
    names = [[(word, part.tag) for part in name for word in (part.text or "").split()] for name in root]
    long = [{"name": name} for name in names if len(name) > 1]
    return [row["name"] for row in distinct(long, key=lambda row: " ".join(word for word, _ in row["name"]).lower())]


def _questions(name: list[tuple[str, str]]) -> list[Record]:
    """Return a question for each kind of part that a name has once, in one piece."""
    context = " ".join(word for word, _ in name)
    rows, at = [], 0
    pieces: dict[str, list[tuple[int, int]]] = {}
    previous = ""
    for word, kind in name:
        found = pieces.setdefault(kind, [])
        if kind == previous:
            found[-1] = (found[-1][0], at + len(word))
        else:
            found.append((at, at + len(word)))
        previous, at = kind, at + len(word) + 1
    for kind, question in _ASKED.items():
        if len(pieces.get(kind, [])) == 1:
            start, end = pieces[kind][0]
            answers = {"text": [context[start:end].rstrip(",")], "answer_start": [start]}
            rows.append({"context": context, "question": question, "answers": answers, "name": context.lower()})
    return rows
