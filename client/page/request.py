"""A run that asks for approval, in plain words: the facts of its page, and the ticks that an approval needs."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from confide.client.answers.proposed_runs import is_declined, read_offers
from confide.client.page.words import span_words, task_words
from confide.client.site.enrolment import kit_of
from confide.client.site.installation import Site, open_site
from confide.client.steward.approval import Verdict, verdict_of
from confide.client.steward.budget import Budget, Budgets, budgets
from confide.client.steward.offers import only_partners
from confide.client.steward.shared_noise import Partner, partners_of
from confide.common.aloud import HASH_DIGITS, digits_of
from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.pages.pictures import bar, squares


@dataclass(frozen=True)
class Request:
    """The facts of a request for approval.

    Attributes:
        run: locked.
        verdict: the institution's answer, as `confide client check` states it.
        server: address of the server; None if none was joined.
        dataset: name of the people whose records are asked for.
        approved, declined: what a person here said before.
        aim, lasts, round_lasts: in plain words.
        factor: e^epsilon, by which one person can change the odds of anything; None without privacy.
        budgets: before and after; None where the run is refused or has no privacy.
        partners: of shared noise, with the state of their fingerprints.
        ticks: name and text of each statement that an approval needs.
        counts_shared: whether the policy lets noised validation counts leave.
        all_of_it: the whole run as JSON.
    """

    run: RunConfig
    verdict: Verdict
    server: str | None
    dataset: str
    approved: bool
    declined: bool
    aim: str
    lasts: str
    round_lasts: str
    factor: float | None
    budgets: Budgets | None
    partners: list[Partner]
    ticks: dict[str, str]
    counts_shared: bool
    all_of_it: str

    @property
    def may_be_approved(self) -> bool:
        """Return whether `confide client approve` would approve it."""
        return not self.verdict.exit_code and not self.approved

    @property
    def waits_for_partners(self) -> bool:
        """Return whether nothing but partners that nobody has compared stands against the run."""
        return bool(self.verdict.policy) and only_partners(self.verdict.policy)

    def picture_of_budget(self) -> Markup:
        """Return the first account as a bar."""
        first = self.budgets.first if self.budgets else Budget(0.0, 0.0, 0.0)
        title = f"Of {first.cap:g}, {first.before:g} is used, this study adds up to {first.after:g}"
        return bar([("spent", first.before), ("asked", first.after - first.before)], first.cap, title)

    def picture_of_attack(self) -> Markup:
        """Return the bound on an attack as squares."""
        share = 1.0 if self.verdict.attack is None else self.verdict.attack
        return squares(share, f"At most {100 * share:.2f} of 100 squares are filled")


def find_run(site: Site, sha256: str) -> RunConfig:
    """Return the offered run of a whole hash; `InputError` if it is not kept here."""
    for run in read_offers(site.offers) if site.offers else []:
        if run.sha256() == sha256:
            return run
    raise InputError("this request is not kept here any more; the server offers it again if it still stands")


def request_of(path: Path, sha256: str) -> Request:
    """Return the facts about an offered run of a site.toml's institution."""
    site = open_site(path)
    run = find_run(site, sha256)
    verdict = verdict_of(run, site)
    deadline, rounds = run.federation.deadline_seconds, run.federation.num_rounds
    try:
        server: str | None = kit_of(site.config.state.dir).address
    except InputError:
        server = None
    return Request(
        run=run,
        verdict=verdict,
        server=server,
        dataset=site.config.dataset.id,
        approved=(run.study.name, sha256) in site.ledger.account().approved,
        declined=bool(site.offers and is_declined(site.offers, run)),
        aim=task_words(run.task),
        lasts=span_words(deadline * rounds),
        round_lasts=span_words(deadline),
        factor=None if verdict.cost is None else math.ceil(10 * math.exp(min(verdict.cost, 50))) / 10,
        budgets=None if verdict.cost is None else budgets(run, site),
        partners=partners_of([run], site),
        ticks=_ticks(run, verdict),
        counts_shared=site.config.policy.share_metrics == "private",
        all_of_it=json.dumps(json.loads(run.canonical_json()), indent=1),
    )


def require_agreement(request: Request, form: Mapping[str, str]) -> None:
    """`InputError` unless a form has every tick, and begins the hash that the page showed."""
    missing = [text for name, text in request.ticks.items() if form.get(name) != "yes"]
    if missing:
        raise InputError(f"not approved: these were not ticked: {' '.join(missing)}")
    typed = digits_of(form.get("hash", ""))
    if len(typed) < HASH_DIGITS or not request.run.sha256().startswith(typed):
        raise InputError(
            f"not approved: {typed!r} is not how this run's hash begins; type its first {HASH_DIGITS} digits, and "
            "approve only if the study designer told you the same"
        )


def _ticks(run: RunConfig, verdict: Verdict) -> dict[str, str]:
    ticks: dict[str, Any] = {
        "known": "I know who asks, and the study designer gave me the same hash in another way than this page.",
    }
    if run.privacy.unit == "none":
        ticks["open"] = "I understand that nothing protects our records in this run."
    else:
        ticks["cost"] = (
            f"I agree that this study may use epsilon {verdict.cost} of our budget. What it uses never comes back, "
            "whatever the study brings."
        )
    if verdict.shared:
        ticks["partners"] = (
            "I, or a colleague of mine, compared each fingerprint by telephone with that institution itself."
        )
    return ticks
