"""Lines and records that no round would use."""

from collections import defaultdict
from collections.abc import Iterator

from confide.common.curation.findings import Places
from confide.common.curation.form import Form, Seen
from confide.common.findings import Finding
from confide.common.shown import shown

_REASONS = 20  # that are shown, the commonest first


class Broken:
    """Lines that cannot be read: no run is joined while there is one."""

    def __init__(self) -> None:
        self.reasons: defaultdict[str, Places] = defaultdict(Places)

    def add(self, number: int, reason: str) -> None:
        """Take a line that is no record."""
        self.reasons[reason].add(number)

    def findings(self, num_whole: int) -> Iterator[Finding]:
        """Yield one finding; ``num_whole`` lines could be read."""
        if not self.reasons:
            yield Finding("lines", "ok", f"{num_whole} records can be read")
            return
        yield Finding("lines", "problem", f"{_listed(self.reasons)}; no run is joined while a line is broken: mend it")


class Unused:
    """Records that a round would pass over, as the kind of task judges them: labels outside the schema among them."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.reasons: defaultdict[str, Places] = defaultdict(Places)
        self.number = 0

    def see(self, seen: Seen) -> None:
        """Take one record."""
        self.number += 1
        if seen.fault is not None:
            self.reasons[shown(seen.fault, 200)].add(seen.number)

    @property
    def wasted(self) -> int:
        """The number of records that a round would pass over."""
        return sum(places.count for places in self.reasons.values())

    def findings(self) -> Iterator[Finding]:
        """Yield one finding: a problem if too few records can be used."""
        usable, least = self.number - self.wasted, self.form.least_usable
        if not self.wasted and self.form.task is None:
            yield Finding("schema", "ok", f"all {usable} records name a person; --run says whether its task reads them")
        elif not self.wasted:
            yield Finding("schema", "ok", f"all {usable} records are of the form that the task reads")
        elif usable < least * self.number or not usable:
            yield Finding(
                "schema",
                "problem",
                f"only {usable} of {self.number} records could be used, must be a share of {least:g}: "
                f"{_listed(self.reasons)}",
            )
        else:
            yield Finding("schema", "warning", f"records that contribute nothing: {_listed(self.reasons)}")


def _listed(reasons: dict[str, Places]) -> str:
    ordered = sorted(reasons.items(), key=lambda item: -item[1].count)
    more = [f"{len(ordered) - _REASONS} more reasons"] if len(ordered) > _REASONS else []
    return "; ".join([f"{places}: {why}" for why, places in ordered[:_REASONS]] + more)
