"""The columns, the text and the labels of a record, as the product reads them.

With a run the kind of task says which columns those are. Without one they are guessed from the names in the file.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from confide.common.data.records import MAX_CHARS, Record, group_of
from confide.common.errors import InputError
from confide.common.forms.entities import OUTSIDE, plain
from confide.common.forms.labels import label_of, number_of, spellings
from confide.common.shown import shown
from confide.common.tasks import Task

_DEPTH = 4  # of lists and objects in a value; texts below are not read
# Inputs and answers of the kinds, those with more columns first.
_GUESSES = (
    (("context", "question"), ("answers",)),
    (("query", "candidates"), ("relevance",)),
    (("prompt", "chosen", "rejected"), ()),
    (("text", "text_pair"), ("label",)),
    (("text", "text_pair"), ("score",)),
    (("text",), ("label",)),
    (("text",), ("labels",)),
    (("text",), ("entities",)),
    (("text",), ("score",)),
    (("tokens",), ("tags",)),
    (("prompt",), ("completion",)),
    (("source",), ("target",)),
    (("messages",), ()),
    (("text",), ()),
)
_LABELS = {"label", "labels", "tags", "entities"}
_NUMBERS = {"score", "relevance"}
_WRITTEN = {"completion", "target"}


@dataclass(frozen=True)
class Form:
    """The way to read a file's records.

    Attributes:
        inputs, answers: our names of columns.
        columns: our name -> the file's column, "group" among them where records belong to persons.
        task: of the run; None if there is no run, so that no record is measured by a schema.
        codes: an institution's own codes -> the study's labels.
        max_chars: longer texts are cut.
        least_usable: the smallest share of records that must be usable.
        records_of_a_unit: so many records count for one person.
        tokenizer: of the run's base; None without a run, or where the base is not on this machine.
    """

    inputs: tuple[str, ...]
    answers: tuple[str, ...]
    columns: Mapping[str, str]
    task: Task | None = None
    codes: Mapping[str, str] = field(default_factory=dict)
    max_chars: int = MAX_CHARS
    least_usable: float = 0.5
    records_of_a_unit: int = 8
    tokenizer: Any = None

    @property
    def has_groups(self) -> bool:
        """True: a column names the person of each record."""
        return "group" in self.columns

    def record(self, row: Record) -> Record:
        """Return a row in our columns, with the study's labels, its texts cut."""
        own = {name: row[column] for name, column in self.columns.items()}
        if self.task:
            return self.task.cut(self.task.translate(own, self.codes), self.max_chars)
        return {name: value if name == "group" else cut(value, self.max_chars) for name, value in own.items()}

    def text(self, record: Mapping[str, Any]) -> str:
        """Return all that a model reads or learns to write of a record."""
        return "\n".join(self._texts(record, written=True))

    def given(self, record: Mapping[str, Any]) -> str:
        """Return all that a prediction for a record reads."""
        return "\n".join(self._texts(record, written=False))

    def lacks_text(self, record: Mapping[str, Any]) -> bool:
        """Return whether one of the texts is empty."""
        return not all(text.strip() for text in self._texts(record, written=True))

    def _texts(self, record: Mapping[str, Any], *, written: bool) -> list[str]:
        names = (*self.inputs, *(name for name in self.answers if written and name in _WRITTEN))
        return [text_of(record.get(name))[: self.max_chars] for name in names]

    def labels(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the labels of a record, or the types of its names; none for a kind without labels."""
        known = getattr(self.task, "labels", ())
        own = [name for name in self.answers if name in _LABELS]
        return tuple(label for name in own for label in _labels_in(plain(record[name]), known, bio=name == "tags"))

    def numbers(self, record: Mapping[str, Any]) -> list[float]:
        """Return the scores or relevances of a record."""
        values = [plain(record[name]) for name in self.answers if name in _NUMBERS]
        found = [number_of(part) for value in values for part in (value if isinstance(value, list) else [value])]
        return [number for number in found if number is not None]


def cut(value: Any, max_chars: int) -> Any:
    """Return a text cut; a value of another form stays."""
    return value[:max_chars] if isinstance(value, str) else value


@dataclass(frozen=True)
class Seen:
    """One record as checks see it.

    Attributes:
        number: of its line, or of its row in a table.
        record: in our columns; its texts, labels and numbers are read from it.
        text: all that a model reads or learns to write.
        given: the part of it that a prediction reads.
        fault: the reason why no round would use it, or None.
        group: the person; None without one.
        lacks_text: True: one of its texts is empty.
        was_cut: True: the file has more of its texts than is read.
    """

    number: int
    record: Record
    text: str
    given: str
    labels: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    fault: str | None = None
    group: str | None = None
    lacks_text: bool = False
    was_cut: bool = False


def seen(form: Form, number: int, row: Record) -> Seen:
    """Return a row, which has all columns, as checks see it."""
    record = form.record(row)
    group = group_of(record) if form.has_groups else None
    fault = form.task.check(record) if form.task else None
    if form.task and form.tokenizer and not fault:
        fault = form.task.why_no_example(record, form.tokenizer)
    if form.has_groups and group is None:
        fault = f"no group in column {form.columns['group']!r}"
    labels, numbers = form.labels(record), tuple(form.numbers(record))
    was_cut = any(cut(row[form.columns[name]], form.max_chars) != row[form.columns[name]] for name in form.inputs)
    texts, empty = (form.text(record), form.given(record)), form.lacks_text(record)
    return Seen(number, record, *texts, labels, numbers, fault, group, empty, was_cut)


def form_of(task: Task, columns: Mapping[str, str]) -> Form:
    """Return the form of a kind's records; ``columns`` maps our names to the file's."""
    names = {name: columns.get(name, name) for name in task.fields()}
    return Form(task.inputs(), task.answers(), names | _group(columns), task)


def guessed_form(there: Collection[str], columns: Mapping[str, str], source: str) -> Form:
    """Return the form that fits the columns of a file.

    Raises:
        InputError: a column that ``columns`` names is not there, or no kind of task reads those that are.
    """
    has = shown(", ".join(map(repr, there)), 200)
    if absent := [column for column in columns.values() if column not in there]:
        raise InputError(
            f"{source}: has no column {absent[0]!r:.60}; it has: {has}; mend --columns, or columns in site.toml"
        )
    for inputs, answers in _GUESSES:
        names = {name: columns.get(name, name) for name in (*inputs, *answers)} | _group(columns)
        if set(names.values()) <= set(there):
            return Form(inputs, answers, names)
    raise InputError(
        f"{source}: no kind of task reads the columns {has}; name them with --columns text=note,label=code, or the run "
        "with --run"
    )


def text_of(value: Any, depth: int = _DEPTH) -> str:
    """Return all texts in a value, joined by blanks; of a message its content.

    >>> text_of([{"role": "user", "content": "a"}, "b", 3])
    'a b'
    """
    value = plain(value)
    if isinstance(value, str):
        return value
    if depth == 0 or not isinstance(value, dict | list):
        return ""
    parts = [part for name, part in value.items() if name != "role"] if isinstance(value, dict) else value
    return " ".join(text for part in parts if (text := text_of(part, depth - 1)))


def _group(columns: Mapping[str, str]) -> dict[str, str]:
    return {"group": columns["group"]} if "group" in columns else {}


def _labels_in(value: Any, known: Collection[str], *, bio: bool) -> list[str]:
    """Return the labels that a value holds: a label, a list of them, entities, or tags of BIO (without B- and I-)."""
    if not isinstance(value, list):
        return [label_of(value, tuple(known))] if spellings(value) else []
    types = [item.get("label") if isinstance(item, dict) else item for item in value]
    names = [label_of(item, tuple(known)) for item in types if spellings(item)]
    if not bio:  # of labels, O is a blood group and I-131 an isotope
        return names
    return [name.removeprefix("B-") for name in names if name != OUTSIDE and not name.startswith("I-")]
