"""The way of every answer of a round: in time, agreed to, charged, computed, sealed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from confide.client.answers.agreement import acknowledge_receipt, agree, plan_of, require_in_time
from confide.client.answers.proposed_runs import is_joined, note_joined
from confide.client.privacy.account import AnswerKey, AnswerKind, Reservation
from confide.client.privacy.release import AnswerRequest, release
from confide.client.site.installation import Site
from confide.client.training.held_out import in_rounds, note_split
from confide.client.training.shares import ClientProcess, Shares, shares_of
from confide.common.config.run import RunConfig
from confide.common.config.sections import SECURE_SUM
from confide.common.errors import PolicyError
from confide.common.model.adapter import schema
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import Coins
from confide.common.privacy.filter import Cap
from confide.common.privacy.secure.sharing import MAX_COORDINATES
from confide.common.protocol.asks import Ask
from confide.common.protocol.gate import RECEIVED_NORM_BOUND
from confide.common.protocol.transfer import decode
from confide.common.tensors import State


@dataclass(frozen=True)
class Price:
    """The kind of an answer, its steps and its validation releases."""

    what: AnswerKind
    steps: int
    releases: int


@dataclass(frozen=True)
class AnswerInputs:
    """Everything that an answer is computed from, after the institution has agreed."""

    model: WarmModel
    shares: Shares
    received: State


@dataclass(frozen=True)
class Work:
    """The work of an answer: ``make`` computes it, ``keep`` stores what stays here, both as `release` calls them."""

    make: Callable[[Reservation, AnswerInputs], bytes]
    keep: Callable[[Reservation], None] = lambda reservation: None


def answered(
    ask: Ask,
    run: RunConfig,
    site: Site,
    client: ClientProcess,
    price: Price,
    work: Work,
) -> bytes:
    """Return one sealed answer, by the release protocol."""
    require_in_time(ask, client)
    acknowledge_receipt(ask, site)

    def agreed() -> tuple[Cap, AnswerInputs]:
        if not 1 <= ask.round <= run.federation.num_rounds:
            raise PolicyError(f"round {ask.round} is refused: the run has {run.federation.num_rounds}")
        cap = agree(run, site, ask.lineage)
        if site.splits is not None:
            note_split(site.splits, in_rounds(run), site.config.dataset)
        joining = not _has_joined(run, site, client)
        model, shares = shares_of(run, site, client, joining=joining)
        shapes = schema(model.module)
        require_room(run, sum(math.prod(shape) for shape in shapes.values()))
        received = decode(ask.adapter, shapes, run.federation.transfer, RECEIVED_NORM_BOUND)
        site.ledger.open_study(run.study.name, plan_of(run, site), cap)
        if joining and site.offers:
            note_joined(site.offers, run, site.config.dataset)
        return cap, AnswerInputs(model, shares, received)

    key = AnswerKey(ask.study, ask.lineage, price.what, ask.round)
    coins = "os" if client.coins == Coins.fresh else "test"
    request = AnswerRequest(key, price.steps, price.releases, ask.input_sha256, ask.run_sha256, coins)
    return release(request, site.ledger, site.outbox, agreed, work.make, work.keep)


def _has_joined(run: RunConfig, site: Site, client: ClientProcess) -> bool:
    """Return whether this institution has joined a run, with the dataset as site.toml describes it now.

    Guarantee: a server that sends no offer gets past none of what joining checks (people of another dataset id, lines
    in doubt). So the first round of a run that is not joined joins it. A dataset id that was changed since has a ledger
    without the study. A run that is over stays so until another offer.
    """
    if (site.config.institution.name, run.sha256()) in client.over:
        return True
    if run.study.name not in site.ledger.account().studies:
        return False
    return site.offers is None or is_joined(site.offers, run, site.config.dataset)


def require_room(run: RunConfig, num_numbers: int) -> None:
    """Check, before anything is charged, that an adapter of so many numbers fits into a secure sum."""
    if run.federation.aggregation == SECURE_SUM and num_numbers > MAX_COORDINATES:
        raise PolicyError(f"the adapter has {num_numbers:,} numbers, a secure sum takes at most {MAX_COORDINATES:,}")
