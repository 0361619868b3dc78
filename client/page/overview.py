"""The facts of the first page: requests, client, budget, studies, what left."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from confide.client.answers.proposed_runs import is_declined, read_offers
from confide.client.page.words import task_words
from confide.client.site.installation import open_site
from confide.client.steward.budget import Budget, budget_now
from confide.client.steward.history import Moment, spend_over_time
from confide.client.steward.ledger_report import egress_of, ledger_facts_of
from confide.client.steward.offers import sorted_by_decision, waiting_runs
from confide.client.steward.status import status_facts_of
from confide.client.steward.studies import studies_of
from confide.common.config.run import RunConfig
from confide.common.pages.pictures import Line, bar, curve
from confide.common.pages.rendering import when


@dataclass(frozen=True)
class Offered:
    """A run in the list of requests."""

    study: str
    sha256: str
    aim: str


@dataclass(frozen=True)
class Overview:
    """The facts of the first page.

    Attributes:
        institution: its name.
        waiting: offered runs that a person may approve.
        refused: offered runs against which the institution's limits or its ledger speak.
        declined: offered runs that a person declined.
        status: as `confide client status` states it.
        ledger: as `confide client ledger show` states it.
        budget, second: both accounts; the second is None where no study shares noise.
        studies: as `confide client studies` lists them.
        left: all that left, newest first.
        moments: the spend over time.
    """

    institution: str
    waiting: list[Offered]
    refused: list[Offered]
    declined: list[Offered]
    status: dict[str, Any]
    ledger: dict[str, Any]
    budget: Budget
    second: Budget | None
    studies: list[dict[str, Any]]
    left: list[dict[str, Any]]
    moments: list[Moment]

    @property
    def open_studies(self) -> list[str]:
        """The names of studies that a person may end."""
        return [name for name, study in self.ledger["studies"].items() if not study["closed"]]

    def picture_of_budget(self) -> Markup:
        """Return the first account as a bar."""
        now = self.budget
        title = f"Of {now.cap:g}, {now.before:g} is spent, and {now.after - now.before:.4g} is set aside"
        return bar([("spent", now.before), ("asked", now.after - now.before)], now.cap, title)

    def picture_over_time(self) -> Markup:
        """Return the spend as a curve from the first charge to the last, under the cap."""
        points = [(float(each.time), each.epsilon) for each in self.moments if math.isfinite(each.epsilon)]
        first, last = points[0][0], points[-1][0]
        cap = self.budget.cap
        lines = [Line([(first, cap), (max(last, first + 1), cap)], "limit"), Line(points, "main", steps=True)]
        title = f"Epsilon spent, from {when(first)} to {when(last)}: {points[-1][1]:g} at the end, of {cap:g}"
        return curve(lines, (first, max(last, first + 1)), (0.0, max(cap, points[-1][1])), title)


def overview_of(path: Path) -> Overview:
    """Return the facts about a site.toml's institution."""
    site = open_site(path)
    ledger = ledger_facts_of(site)
    offers = read_offers(site.offers) if site.offers else []
    waiting, refused = sorted_by_decision(site, waiting_runs(site))
    return Overview(
        institution=site.config.institution.name,
        waiting=list(map(_offered, waiting)),
        refused=list(map(_offered, refused)),
        declined=[_offered(run) for run in offers if site.offers and is_declined(site.offers, run)],
        status=status_facts_of(site),
        ledger=ledger,
        budget=budget_now(site),
        second=budget_now(site, "second") if "epsilon_spent_if_broken" in ledger else None,
        studies=studies_of(site),
        left=egress_of(site)[::-1],
        moments=spend_over_time(site),
    )


def state_of(path: Path, state: Path) -> tuple[object, ...]:
    """Return something that differs whenever the pages would: sizes and times of files, and nothing read.

    Args:
        path: of site.toml, whose edit shows too.
        state: its `state.dir`.
    """
    names = ("ledger.db", "ledger.db-wal", "status.json", "paused", "offers", "client.lock")
    shares = sorted((state / "shares").glob("*"))  # a folder for each dataset
    return (*(_stamp(state / name) for name in names), *map(_stamp, shares), _stamp(path))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _offered(run: RunConfig) -> Offered:
    return Offered(run.study.name, run.sha256(), task_words(run.task))
