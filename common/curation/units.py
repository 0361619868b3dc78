"""Persons (or whatever a group is), and how many records each has."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from confide.common.curation.form import Form, Seen
from confide.common.findings import Finding


class Units:
    """The units that privacy protects: persons where a column names them, else single records."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.records = Counter[int]()
        self.number = 0

    def see(self, seen: Seen) -> None:
        """Take one record."""
        self.number += 1
        if seen.group is not None:
            self.records[hash(seen.group)] += 1

    def findings(self) -> Iterator[Finding]:
        """Yield one finding."""
        if not self.form.has_groups:
            text = f"{self.number}, each record one; a person with several records needs a column for it (group)"
            yield Finding("units", "ok", text)
            return
        if not self.records:
            yield Finding("units", "problem", f"column {self.form.columns['group']!r} names no person at all")
            return
        sizes = np.array(list(self.records.values()))
        most = self.form.records_of_a_unit
        text = f"{len(sizes)} persons, half with at most {int(np.median(sizes))} records, one with {sizes.max()}"
        over = int((sizes > most).sum())
        if over:
            rest = int((sizes - most).clip(min=0).sum())
            text += f"; {over} have more than {most}, so {rest} records do not count (dataset.max_records_per_group)"
        yield Finding("units", "warning" if over else "ok", text)
