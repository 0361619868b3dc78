"""A client of secure sums whose shares are coins and whose masks are hashes; its ledger and its files are real."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from crash import fake
from crash.asks import Ask
from crash.killing import BETWEEN
from crash.planted import Planted
from support.ledgers import OTHER

from confide.client.config import load_site_config
from confide.client.privacy import sum_release
from confide.client.privacy.account import Reservation
from confide.client.privacy.outbox import FileOutbox
from confide.client.privacy.policy import cap_of
from confide.client.privacy.release import release
from confide.client.privacy.sum_checks import require_open
from confide.client.privacy.sum_shares import hold_share, recover_shares, require_held
from confide.common import failpoints
from confide.common.privacy.filter import Cap

_MEMBERS = 4
# Epsilon of the whole first plan: 2.3 by PLD, 4.2 if the shared noise is broken; 3.0 and 6.2 by the filters.
PLANS = {
    "one": replace(OTHER, num_steps=5).shared(_MEMBERS, 1, 64),
    "two": replace(OTHER, noise_multiplier=8.0, num_steps=4).shared(_MEMBERS, 1, 64),
    "three": fake.PLANS["three"],
}
# Refused by both accounts, by the second, by the first; then "one" fits by both PLDs alone; then both filters fit.
_LIMITS = [(0.3, None), (3.3, None), (2.0, 20.0), (2.4, 4.3), (3.3, 5.0), *[(8.0, 20.0)] * 5]
CAPS = [Cap(epsilon, 1e-5, if_broken) for epsilon, if_broken in _LIMITS]
_SECRET = 32  # bytes of a mask key, before the numbers of a share
_STATEMENTS = ("6" * 64, "7" * 64)


def script(random: Random) -> list[Ask]:
    """Asks of a hostile server: shares for one adapter or more, their sums at once or later, in any order, twice."""
    asks: list[Ask] = []
    for study, plan in PLANS.items():
        later: list[Ask] = []
        for number in range(1, plan.num_steps + 2):
            shares = [Ask(study, "update", number, f"{adapter:x}" * 64) for adapter in random.sample(range(16), 3)]
            shares = shares[: random.choice([1, 1, 1, 2, 3])]  # three: an attempt too many
            asks += [share for share in shares for _ in range(random.choice([1, 1, 2]))]
            if plan.sharing:
                later += _sums(random, [*shares, replace(shares[0], round=number + 7)])
            if random.random() < 0.7:
                asks, later = asks + later, []
            if random.random() < 0.3:
                asks.append(random.choice(shares))  # a share once more, perhaps after its round
        random.shuffle(later)
        asks += later
    return asks


def _sums(random: Random, shares: list[Ask]) -> list[Ask]:
    """The first share's sum, mostly twice; then sums under another statement, of another adapter, or of no share."""
    sums = [replace(shares[0], statement=_STATEMENTS[0])] * random.choice([1, 2, 2])
    others = [replace(random.choice(shares), statement=random.choice(_STATEMENTS)) for _ in range(2)]
    return sums + others[: random.choice([0, 1, 2])]


class SummingClient(fake.FakeClient):
    """Answers the two asks of a round: with an envelope, then with its masked share."""

    plans = PLANS

    def __init__(
        self, tell: Callable[[object], None], folder: Path, act: Callable[[str], None], planted: Planted
    ) -> None:
        super().__init__(tell, folder, act, planted)
        self.shares, self.drawn = FileOutbox(folder / "state" / "shares"), dict[int, bytes]()
        recover_shares(self.ledger, self.outbox, self.shares)

    def released(self, ask: Ask) -> bytes:
        """An envelope, a masked share, or an answer of a study whose institutions share nothing."""
        if self.plans[ask.study].sharing is None:
            return super().released(ask)
        return self.masked(ask) if ask.statement else self.envelope(ask)

    def envelope(self, ask: Ask) -> bytes:
        """As `secure_round.answer_share` does."""
        request, account = fake.request_of(ask), self.ledger.account()
        asked = (request.input_sha256, request.run_sha256)
        require_open(account, request.key, asked)
        require_held(account, request.key, asked, self.shares)

        def make(reservation: Reservation, prepared: None) -> bytes:
            self.drawn[reservation.number] = self.planted.coins(ask).noise_uniforms(12).tobytes()
            self.tell(("drawn", self.drawn[reservation.number]))
            return json.dumps({"head": reservation.hash}).encode()

        def keep(reservation: Reservation) -> None:
            hold_share(reservation, self.drawn.pop(reservation.number), self.shares)

        return release(request, self.ledger, self.outbox, partial(self.agree, ask), make, keep)

    def masked(self, ask: Ask) -> bytes:
        """As `secure_round.answer_sum` does, after the checks of the statement."""

        def mask(reservation: Reservation, held: bytes) -> tuple[bytes, bytes]:
            share = np.frombuffer(held[_SECRET:], np.uint8)
            stream = hashlib.shake_256(held[:_SECRET] + ask.statement.encode()).digest(share.size)
            numbers = (share ^ np.frombuffer(stream, np.uint8)).tobytes()
            return json.dumps({"head": reservation.hash}).encode() + b"\n" + numbers, numbers

        def agree(reservation: Reservation) -> Cap:
            return cap_of(load_site_config(self.folder / "site.toml").policy)

        of = fake.request_of(ask)
        request = sum_release.SumRequest(of.key, of.input_sha256, of.run_sha256, ask.statement, _MEMBERS)
        return sum_release.release_sum(request, self.ledger, self.outbox, self.shares, agree, mask)


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """The head of an answer, and the numbers after it: none in an envelope."""
    text, _, numbers = content.partition(b"\n")
    return text, numbers


def _receipt(content: bytes) -> str:
    """Of a masked share, or of an answer that is none; an envelope is no receipt."""
    text, numbers = _parts(content)
    return fake.head(text) if numbers or b"noise" in text else ""


KIND = replace(
    fake.KIND,
    places=(*failpoints.NAMES, *failpoints.OF_A_SUM, *BETWEEN),
    caps=CAPS,
    plans=PLANS,
    policy="tolerate_colluding = 1\n",
    script=script,
    warm=partial(fake.warm, PLANS, CAPS),
    client=SummingClient,
    head=lambda content: fake.head(_parts(content)[0]),
    receipt=_receipt,
    payload=lambda content: _parts(content)[1] or content,
)
