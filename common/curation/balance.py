"""Labels and scores, by number."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from confide.common.curation.form import Seen
from confide.common.findings import Finding
from confide.common.shown import shown

_RARE = 0.02  # of all labels
_SHOWN = 12
_KEPT = 1_000  # distinct labels; a column of free texts would have very many


class Balance:
    """The count of each label, or the range of scores."""

    def __init__(self, schema: Sequence[str]) -> None:
        self.schema = schema
        self.labels = Counter[str]()
        self.numbers = Counter[float]()
        self.without = 0

    def see(self, seen: Seen) -> None:
        """Take one record."""
        for label in seen.labels:
            if label in self.labels or len(self.labels) < _KEPT:
                self.labels[label] += 1
        for number in seen.numbers:
            if number in self.numbers or len(self.numbers) < _KEPT:
                self.numbers[number] += 1
        self.without += not seen.labels

    def findings(self) -> Iterator[Finding]:
        """Yield a finding about labels, or about scores; none for a kind without either."""
        if self.labels:
            yield self._of_labels()
        if self.numbers:
            values = np.array(sorted(self.numbers.elements()))
            low, middle, high = (f"{value:g}" for value in np.percentile(values, (0, 50, 100)))
            share = self.numbers.most_common(1)[0][1] / len(values)
            text = f"{len(values)} from {low} to {high}, half at most {middle}; the commonest makes {share:.0%} of them"
            yield Finding("scores", "warning" if share > 0.9 else "ok", text)

    def _of_labels(self) -> Finding:
        total = self.labels.total()
        ordered = self.labels.most_common()
        listed = [f"{_visible(label)} {count} ({count / total:.0%})" for label, count in ordered[:_SHOWN]]
        more = [f"{len(ordered) - _SHOWN} more labels"] if len(ordered) > _SHOWN else []
        none = [f"{self.without} records without any"] if self.without else []
        absent = [label for label in self.schema if label not in self.labels]
        rare = [label for label, count in ordered if count < _RARE * total]
        faults = [f"none has {', '.join(map(_visible, absent[:_SHOWN]))}"] if absent else []
        faults += [f"rare: {', '.join(map(_visible, rare[:_SHOWN]))}"] if rare else []
        faults += self._alike([label for label, _ in ordered])[:_SHOWN]
        faults += ["all have one label, so nothing can be learned"] if len(ordered) == 1 and not absent else []
        return Finding(
            "labels", "warning" if faults else "ok", "; ".join([", ".join([*listed, *more, *none]), *faults])
        )

    def _alike(self, ordered: Sequence[str]) -> list[str]:
        """Return a hint for each label, none of the schema's own, that looks like one of it or like a commoner one."""
        meant = dict[str, str]()
        for label in (*self.schema, *ordered):
            meant.setdefault(_folded(label), label)
        return [
            f"{label!r:.60} differs from {meant[_folded(label)]!r:.60} by blanks or case alone: mend it"
            for label in ordered
            if label not in self.schema and meant[_folded(label)] != label
        ]


def _visible(label: str) -> str:
    """Return a label as it is shown, in quotes where it is empty or has blanks that would not show."""
    return shown(label if label and " ".join(label.split()) == label else repr(label), 60)


def _folded(label: str) -> str:
    return "".join(label.split()).casefold()
