"""A client whose trainer is fake and whose ledger, outbox, witnesses and site file are real."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from crash.asks import Ask, Kind
from crash.killing import BETWEEN
from crash.planted import Planted
from support.ledgers import OTHER, RUN, make_ledger

from confide.client.config import load_site_config
from confide.client.privacy import rollback as witnesses_module
from confide.client.privacy.account import AnswerKey, LedgerRow, Reservation
from confide.client.privacy.outbox import FileOutbox
from confide.client.privacy.policy import cap_of
from confide.client.privacy.release import AnswerRequest, acknowledge, recover
from confide.client.privacy.rollback import Witnesses
from confide.common import failpoints
from confide.common.errors import ConfideError
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.filter import Cap, choose_orders
from confide.common.privacy.plan import PrivacyPlan

# Without sampling, so that each of many compositions takes a tenth of a second.
PLANS = {
    "one": replace(OTHER, num_steps=5, validation_releases=1),
    "two": replace(OTHER, noise_multiplier=8.0, num_steps=4),
    "three": replace(OTHER, noise_multiplier=40.0, num_steps=3, validation_releases=1),
}
_LINEAGES = dict(zip(PLANS, ("11" * 16, "22" * 16, "33" * 16), strict=True))
# With the first, everything is refused; with the second, "one" fits by PLD alone and blocks the others.
CAPS = [Cap(epsilon, 1e-5) for epsilon in (0.3, 2.4, 3.3, 8.0, 8.0, 8.0)]


def script(random: Random) -> list[Ask]:
    """Asks of three studies: more rounds than are allotted, other inputs for a round, the same ask again, counts."""
    asks: list[Ask] = []
    for study, plan in PLANS.items():
        for number in range(1, plan.num_steps + 2):
            ask = Ask(study, "update", number, f"{random.randrange(16):x}" * 64)
            asks += [ask] * random.choice([1, 1, 2])
            if random.random() < 0.15:
                asks.append(replace(ask, input_sha256="f" * 63 + "0"))
            if number % 3 == 0:
                asks.append(Ask(study, "validation", number, ask.input_sha256))
    return asks


def prepare(folder: Path) -> None:
    """Nothing but the site file, which the parent writes."""


def warm(plans: dict[str, PrivacyPlan], caps: list[Cap]) -> None:
    """Compute once what every child would compute: what a fork copies."""
    for plan in plans.values():
        for cap in caps:
            choose_orders(plan, cap)
        for steps in range(plan.num_steps + 1):
            for releases in range(plan.validation_releases + 1):
                epsilon(plan, steps, releases)
                epsilon(plan.if_broken, steps, releases)


class FakeClient:
    """Opens a state folder as `site.open_site` does, and trains nothing; ``plans`` by study."""

    plans = PLANS

    def __init__(
        self, tell: Callable[[object], None], folder: Path, act: Callable[[str], None], planted: Planted
    ) -> None:
        self.tell, self.folder, self.planted = tell, folder, planted
        append, state = witnesses_module.append_durably, folder / "state"

        def append_later(path: Path, line: str) -> None:
            act("anchor-written")
            append(path, line)

        witnesses_module.append_durably = append_later  # type: ignore[attr-defined]
        witnesses = Witnesses(folder / "anchor", state / "audit.jsonl", "people")

        def witness(row: LedgerRow, row_hash: str) -> None:
            act("row-committed")
            witnesses(row, row_hash)

        self.ledger, self.outbox = make_ledger(state / "ledger.db", witness), FileOutbox(state / "outbox")
        witnesses.check(self.ledger.rows)
        self.ledger.account()
        recover(self.ledger, self.outbox)

    def answer(self, ask: Ask) -> tuple[object, ...]:
        """Take the receipt, then answer."""
        try:
            if ask.receipt:
                is_sum = self.plans[ask.study].sharing is not None
                acknowledge(ask.receipt, self.ledger, self.outbox, is_sum=is_sum)
            return "answer", self.released(ask)
        except ConfideError as error:
            return "declined", type(error).__name__, str(error)

    def released(self, ask: Ask) -> bytes:
        """Through the release protocol."""
        agree, make = partial(self.agree, ask), partial(self.make, ask)
        return self.planted.release(request_of(ask), self.ledger, self.outbox, agree, make)

    def agree(self, ask: Ask) -> tuple[Cap, None]:
        """The cap of the site file as it is now."""
        cap = cap_of(load_site_config(self.folder / "site.toml").policy)
        self.ledger.open_study(ask.study, self.plans[ask.study], cap)
        return cap, None

    def make(self, ask: Ask, reservation: Reservation, prepared: None) -> bytes:
        """Noise, which the parent is told even if it is never sent."""
        noise = self.planted.coins(ask).noise_uniforms(8).tobytes()
        self.tell(("drawn", noise))
        return json.dumps({"head": reservation.hash, "noise": noise.hex()}).encode() + bytes(2000)


def request_of(ask: Ask) -> AnswerRequest:
    """One step or one release of an ask's study."""
    charge = (1, 0) if ask.what == "update" else (0, 1)
    return AnswerRequest(
        AnswerKey(ask.study, _LINEAGES[ask.study], ask.what, ask.round), *charge, ask.input_sha256, RUN
    )


def head(content: bytes) -> str:
    """Which RESERVE row an answer names."""
    return str(json.loads(content.rstrip(b"\0"))["head"])


KIND = Kind(
    places=(*failpoints.NAMES, *BETWEEN),
    longest=0.05,
    caps=CAPS,
    plans=PLANS,
    policy="",
    script=script,
    warm=partial(warm, PLANS, CAPS),
    prepare=prepare,
    client=FakeClient,
    head=head,
    receipt=head,
    payload=lambda content: content,
    reads_policy_at_every_ask=True,
)
