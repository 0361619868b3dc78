"""All checks of a file in one pass, and their report as text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from confide.common.curation.balance import Balance
from confide.common.curation.broken import Broken, Unused
from confide.common.curation.duplicates import Duplicates, Overlap
from confide.common.curation.encodings import Encodings
from confide.common.curation.findings import Check
from confide.common.curation.form import Form, seen
from confide.common.curation.identifiers import Identifiers
from confide.common.curation.label_noise import LabelNoise
from confide.common.curation.languages import Languages
from confide.common.curation.lengths import Lengths
from confide.common.curation.units import Units
from confide.common.data.records import inspect_rows
from confide.common.errors import InputError
from confide.common.findings import Finding
from confide.common.shown import shown

_PREVIEW, _PREVIEW_CHARS = 3, 100
CAVEAT = (
    "Nothing here was sent. Curating records by this report is not covered by the guarantee: the guarantee bounds the "
    "influence of each person on a run over a given file, not that of one person's records on who else is in the file."
)


@dataclass(frozen=True)
class Report:
    """The findings about a file.

    Attributes:
        preview: the first records as the product reads them, their values cut.
        left_out: so many records can be read, but a round would pass over them.
    """

    path: Path
    form: Form
    preview: list[dict[str, str]]
    findings: list[Finding]
    left_out: int = 0

    def stops(self) -> list[str]:
        """Return the subjects that stop use of the file."""
        return [finding.subject for finding in self.findings if finding.state == "problem"]

    def reading(self) -> str:
        """Return in words how the file is read."""
        kind = self.form.task.model_dump()["kind"] if self.form.task else "guessed from the columns, no run was given"
        return f"task.kind: {kind}"

    def verdict(self) -> str:
        """Return in words whether the file can be used."""
        if stops := self.stops():
            return f"cannot be used: {', '.join(stops)}"
        if not self.left_out:
            return "can be used"
        some, them = ("1 record", "it") if self.left_out == 1 else (f"{self.left_out} records", "them")
        return f"can be used by an institution, which leaves {some} out; a simulation needs {them} mended"


def check_data(path: Path, form: Form, test: Path | None = None) -> Report:
    """Check a file of records.

    Of each record the checks hold about 400 bytes, and of 10,000 records the text. The file itself is read whole.

    Args:
        path: of a form that `inspect_rows` reads.
        form: its columns.
        test: a public test file, whose texts should not be here.

    Raises:
        InputError: a file cannot be read or holds no record, or no record has the columns.
    """
    broken, overlaps = Broken(), [] if test is None else [_overlap(test, form)]
    schema = getattr(form.task, "labels", ())
    unused = Unused(form)
    judged = [unused] if form.task or form.has_groups else []
    own: list[Check] = [Lengths(form), Duplicates(), *overlaps, Balance(schema), LabelNoise()]
    checks = [*judged, *own, Languages(), Encodings(), Identifiers(), Units(form)]
    preview, whole = list[dict[str, str]](), 0
    for number, row in _records(path, form.columns, broken):
        record = seen(form, number, row)
        if len(preview) < _PREVIEW:
            preview.append(_cut(record.record))
        for check in checks:
            check.see(record)
        whole += 1
    # A check that saw no record has found nothing, and says nothing.
    found = chain(broken.findings(whole), *(check.findings() for check in checks if whole))
    return Report(path, form, preview, list(found), unused.wasted)


def _records(path: Path, columns: Mapping[str, str], broken: Broken) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the records that have all columns; other lines are broken.

    Raises:
        InputError: there is no line, or none that can be read has the columns.
    """
    lacking, whole, empty = "", 0, True
    for number, row in inspect_rows(path):
        empty = False
        missing = None if isinstance(row, str) else next((name for name in columns.values() if name not in row), None)
        if isinstance(row, str):
            broken.add(number, row)
        elif missing is not None:
            reason = shown(f"no column {missing!r}; it has: {', '.join(map(repr, row))}", 200)
            lacking = lacking or reason
            broken.add(number, reason)
        else:
            whole += 1
            yield number, row
    if empty:
        raise InputError(f"{path}: holds no records")
    if lacking and not whole:
        raise InputError(f"{path}: {lacking}; name the file's columns with --columns text=note,label=code")


def _overlap(path: Path, form: Form) -> Overlap:
    """Return the check that has seen a test file, under the same columns or under ours."""
    overlap = Overlap()
    places = [{name: form.columns[name] for name in form.inputs}, {name: name for name in form.inputs}]
    for number, row in inspect_rows(path):
        if isinstance(row, str):
            continue
        names = next((names for names in places if row.keys() >= set(names.values())), None)
        if names is None:
            raise InputError(
                f"{path}: record {number} has none of the columns {', '.join(map(repr, places[0].values()))}; "
                f"it has: {shown(', '.join(map(repr, row)), 200)}"
            )
        overlap.see_test(seen(Form(form.inputs, (), names, max_chars=form.max_chars), number, row))
    return overlap


def _cut(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: shown(value, _PREVIEW_CHARS) for name, value in record.items()}


def report_text(report: Report) -> str:
    """Return the report as text."""
    lines = [f"{report.path}", f"{report.reading()}; columns (ours <- the file's):"]
    lines += [f"  {name} <- {column}" for name, column in report.form.columns.items()]
    lines += ["", "the first records as the product reads them:"]
    for number, record in enumerate(report.preview, start=1):
        lines += [f"  {number}  {name}: {value}" for name, value in record.items()]
    lines += ["", "numbers behind `at` are those of lines, of rows in a table", ""]
    lines += [finding.line() for finding in report.findings]
    return "\n".join([*lines, "", f"{report.path.name} {report.verdict()}", CAVEAT])
