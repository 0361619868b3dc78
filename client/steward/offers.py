"""Runs that were offered here: the one that a person means, those that wait, and a person's no."""

from collections.abc import Iterable
from pathlib import Path

from confide.client.answers.agreement import decision_on
from confide.client.answers.proposed_runs import is_declined, note_decline, read_offers
from confide.client.privacy.policy import waits_for_approval
from confide.client.site.installation import Site, open_site
from confide.client.steward.studies import is_open_for
from confide.common.aloud import digits_of, hash_start
from confide.common.config.run import RunConfig
from confide.common.errors import InputError


def waiting_runs(site: Site) -> list[RunConfig]:
    """Return every offered run that waits for a person, newest first; without those that a person declined."""
    offers, approved = site.offers, site.ledger.account().approved
    if offers is None:
        return []
    waiting = [run for run in read_offers(offers) if waits_for_approval(run, site.config.policy, approved)]
    return [run for run in waiting if not is_declined(offers, run)]


def sorted_by_decision(site: Site, runs: list[RunConfig]) -> tuple[list[RunConfig], list[RunConfig]]:
    """Return the runs that a person may approve, if need be after comparing partners, and those that cannot be."""
    waiting, refused = list[RunConfig](), list[RunConfig]()
    for run in runs:
        try:
            decision = decision_on(run, site)
        except ValueError:  # of a run that fixes no noise: a server may offer anything
            refused.append(run)
        else:
            (refused if decision.budget or not only_partners(decision.refusals) else waiting).append(run)
    return waiting, refused


def only_partners(refusals: Iterable[str]) -> bool:
    """Return whether nothing but partners that nobody has compared stands against a run."""
    return all(reason.startswith("study.keys:") for reason in refusals)


def offered_run(path: Path, study: str, sha256: str) -> RunConfig:
    """The offered run of a study that waits for approval; ``sha256`` begins its hash, where there are several.

    Raises:
        InputError: none was offered, or several: a person must know which of them is agreed to.
    """
    site = open_site(path)
    approved = site.ledger.account().approved
    known, prefix = read_offers(site.offers, study) if site.offers else [], digits_of(sha256)
    offered = [run for run in known if run.sha256().startswith(prefix)]
    if known and not offered:
        hashes = ", ".join(run.sha256() for run in known)
        raise InputError(
            f"--sha256 {prefix}: no run of study {study!r} that was offered here begins so; they are {hashes}"
        )
    waiting = [run for run in offered if (study, run.sha256()) not in approved] or offered[:1]
    if not waiting:
        others = sorted({run.study.name for run in read_offers(site.offers)}) if site.offers else []
        told = f", but runs of {', '.join(map(repr, others))} were" if others else ""
        raise InputError(f"no run of study {study!r} was offered here{told}; name its file with --run RUN.toml")
    if len(waiting) > 1:
        hashes = ", ".join(hash_start(run.sha256()) for run in waiting)
        raise InputError(
            f"{len(waiting)} runs of study {study!r} wait ({site.offers}); name one with --sha256: {hashes}"
        )
    return waiting[0]


def require_hash(run: RunConfig, sha256: str) -> None:
    """`InputError` where a run's hash does not begin as a person was told; blanks, dashes and capitals do not count."""
    if not run.sha256().startswith(digits_of(sha256)):
        raise InputError(
            f"--sha256 {digits_of(sha256)}, but the run of this file has the hash {run.sha256()}: it is not the run "
            "that you were told of; get its file again, or leave --sha256 out"
        )


def decline_run(path: Path, run: RunConfig) -> str:
    """Decline an offered run; its approval takes that back. The client answers `declined`, as for any other reason.

    Raises:
        InputError: it was approved here, or its study is open. An approval stays in the ledger, and so does what was
            spent; a study ends by `client ledger close`.
    """
    site, name = open_site(path), run.study.name
    if (name, run.sha256()) in site.ledger.account().approved:
        raise InputError(
            f"run {hash_start(run.sha256())} of study {name!r} was approved here, and an approval stays; `confide "
            f"client pause` answers nothing for a while, `confide client ledger close {name}` ends the study once it "
            "is open"
        )
    if is_open_for(site, run):
        raise InputError(
            f"study {name!r} is open here for run {hash_start(run.sha256())}, so it is too late to decline: `confide "
            f"client ledger close {name}` ends the study, `confide client pause` answers nothing for a while"
        )
    if site.offers:
        note_decline(site.offers, run)
    return f"study {name}, run {hash_start(run.sha256())}: declined; nothing was charged, and nothing leaves for it"
