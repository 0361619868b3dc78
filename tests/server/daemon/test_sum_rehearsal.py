"""A rehearsal of a secure sum: real clients mask zeros for each other, and a mask that does not cancel is seen."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from support.installations import start_state, write_site
from support.planting import require_caught

from confide.client.answers import rehearsal as answers
from confide.client.answers.agreement import acknowledge_receipt
from confide.client.answers.app import make_client_app
from confide.client.answers.secure_round import require_own_rows
from confide.client.site.installation import Site, open_site
from confide.client.steward.approval import approve_run
from confide.client.training import made_up
from confide.common.config.run import RunConfig, lock
from confide.common.errors import PolicyError
from confide.common.model.base_models import hash_model
from confide.common.protocol import secure_sum
from confide.common.protocol.asks import Ask
from confide.common.protocol.enrolment import partner_fingerprint
from confide.common.protocol.secure_sum import ShareEnvelope, Statement, SumEnvelope
from confide.common.protocol.sum_messages import Masked, ask_for_sum, share_from
from confide.common.tensors import State
from confide.server.commands.admin_client import _told
from confide.server.daemon import rehearsal as rehearsals
from confide.server.home.registry import Member
from confide.simulations.engines.grid import Faults, InProcessGrid, SkippingClock, no_faults

NAMES = ("anne", "jude", "luke", "mary")
LINEAGE = "ab" * 16


class Fleet:
    """Four institutions on disk that have approved a secure sum of three at least; their records are not there."""

    def __init__(self, folder: Path, make_run: Callable[..., RunConfig], base_folder: Path) -> None:
        self.folder, self.events = folder, list[dict[str, Any]]()
        keys = {name: self._write(name, {}).identity.public_hex() for name in NAMES}
        run = make_run(
            study={"institutions": list(NAMES), "keys": keys},
            federation={"min_clients": 3, "aggregation": "secure-sum", "weights": "declared"},
            local={"nominal_units": 20, "sampling_probability": 1.0},
            privacy={"max_colluding": 1},
        )
        self.run, self.sites = lock(run, hash_model(base_folder)), []
        for name in NAMES:
            self.sites.append(self._write(name, {other: partner_fingerprint(keys[other]) for other in NAMES}))
            approve_run(self.run, "test", folder / name / "site.toml")
            (folder / name / "notes.jsonl").unlink()
        self.initial: State = start_state(self.run)
        self.asks, self.replies = list[Message](), list[Message]()

    def _write(self, name: str, partners: dict[str, str]) -> Site:
        others = {other: value for other, value in partners.items() if other != name}
        policy = {"max_epsilon_if_broken": 100.0, "tolerate_colluding": 1}
        return open_site(write_site(self.folder / name, name=name, policy=policy, partners=others))

    def rehearse(self, faults: Faults = no_faults, is_over: Callable[[], bool] = lambda: False) -> int:
        members = {
            1000 + number: Member(site.config.institution.name, "pem", site.identity.public_hex(), "today")
            for number, site in enumerate(self.sites)
        }

        def heard(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
            self.asks.append(message)
            seconds, reply = faults(message, answer)
            self.replies += [reply] if reply is not None else []
            return seconds, reply

        clock = SkippingClock()
        app = make_client_app(lambda context: self.sites[int(context.node_config["partition-id"])])
        grid = InProcessGrid(app, len(self.sites), clock, heard)
        rehearsal = rehearsals.Rehearsal(self.run, LINEAGE, self.initial, members, is_over)
        self.events.clear()
        return rehearsals.rehearse_round(rehearsal, grid, clock, self.events.append)

    def of_sum(self) -> list[str]:
        return [event["answer"] for event in self.events if event["event"] == "rehearsed_sum"]

    def state(self) -> dict[str, bytes]:
        """Everything in the state folders but SQLite's own bookkeeping."""
        files = (path for name in NAMES for path in (self.folder / name / "state").rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files if path.suffix != ".db-shm"}


@pytest.fixture
def fleet(tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path) -> Fleet:
    return Fleet(tmp_path, make_run, base_folder)


def _of(node: int, kind: str, change: Callable[[Callable[[], Message]], Message | None]) -> Faults:
    """A fault of one node in one exchange."""

    def fault(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        metadata = message.metadata
        is_it = (metadata.dst_node_id, metadata.message_type) == (node, kind)
        return 0.0, change(answer) if is_it else answer()

    return fault


def test_the_masks_of_all_cancel_and_nothing_is_charged_or_kept(fleet: Fleet) -> None:
    before = fleet.state()
    assert fleet.rehearse() == 4
    assert [event["answer"] for event in fleet.events[:4]] == ["answered"] * 4
    assert fleet.of_sum() == ["the sum of anne, jude, luke, mary is zero: their masks cancel"]
    assert _told(fleet.events[-1], "") == f"{fleet.of_sum()[0]} (0.0 s)\n"
    assert fleet.state() == before
    assert not [row for site in fleet.sites for row, _ in site.ledger.rows() if row["kind"] in ("open", "reserve")]
    masked = [Masked.from_content(reply.content) for reply in fleet.replies if "masked" in reply.content]
    assert len(masked) == 4
    for one in masked:
        numbers = one.numbers(sum(value.size for value in fleet.initial.values()))
        assert numbers.any(), "the masks are there"
        assert one.envelope.what == "rehearsal"


@pytest.mark.waits
def test_it_takes_the_step_of_a_round_on_made_up_records(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """So its time tells that of a round; what the step gives is dropped."""
    steps, share = list[int](), made_up.share
    monkeypatch.setattr(made_up, "share", lambda *args: steps.append(args[3].num_units) or share(*args))
    fleet.rehearse()
    assert steps == [20] * 4


def _wrong_sign(patch: pytest.MonkeyPatch) -> None:
    right = secure_sum.masked
    patch.setattr(answers, "masked", lambda *args: (0 - right(*args)).astype(np.uint32))


def _another_version(patch: pytest.MonkeyPatch) -> None:
    pair_mask = secure_sum.pair_mask

    def other(shared_secret: bytes, digest: bytes, names: tuple[str, str], count: int) -> Any:
        return pair_mask(shared_secret, digest, (f"{names[0]} ", names[1]), count)

    patch.setattr(secure_sum, "pair_mask", other)


def _not_zero(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(answers, "masked", lambda share_P, *args: secure_sum.masked(share_P + np.uint32(1), *args))


@pytest.mark.parametrize(
    "wrong",
    [_wrong_sign, *(pytest.param(change, marks=pytest.mark.waits) for change in (_another_version, _not_zero))],
)
def test_a_member_that_masks_another_way_is_seen_before_the_first_round(
    fleet: Fleet, wrong: Callable[[pytest.MonkeyPatch], None]
) -> None:
    def change(answer: Callable[[], Message]) -> Message:
        with pytest.MonkeyPatch.context() as patch:
            wrong(patch)
            return answer()

    with pytest.raises(PolicyError, match="the sum of anne, jude, luke, mary is not zero"):
        fleet.rehearse(_of(1001, "query.rehearse_sum", change))
    [told] = fleet.of_sum()
    assert "one of them masks another way, or sent something else; install the same version of Confide" in told


@pytest.mark.waits
def test_a_member_that_does_not_mask_is_named(fleet: Fleet) -> None:
    with pytest.raises(PolicyError, match="anne, jude, luke, mary cannot be read: jude: no answer before the deadline"):
        fleet.rehearse(_of(1001, "query.rehearse_sum", lambda answer: None))


def _stopped_between_the_exchanges(fleet: Fleet) -> None:
    stopped = list[bool]()
    fleet.rehearse(_of(1001, "query.rehearse_sum", lambda answer: stopped.append(True)), lambda: bool(stopped))
    assert fleet.of_sum() == []


@pytest.mark.waits
def test_a_rehearsal_that_is_stopped_says_nothing_of_a_sum(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had not answered yet did nothing wrong."""
    right = "    if rehearsal.is_over():\n        return\n"
    require_caught(monkeypatch, rehearsals, (right, "", partial(_stopped_between_the_exchanges, fleet)))


@pytest.mark.waits
def test_of_the_members_that_answer_the_masks_are_rehearsed(fleet: Fleet) -> None:
    assert fleet.rehearse(_of(1001, "query.rehearse", lambda answer: None)) == 3
    assert fleet.of_sum() == ["the sum of anne, luke, mary is zero: their masks cancel"]


@pytest.mark.waits
def test_with_too_few_there_is_no_sum(fleet: Fleet) -> None:
    (fleet.folder / "jude" / "site.toml").unlink()
    fleet.sites[1] = open_site(write_site(fleet.folder / "jude", name="jude", policy={"studies": []}))
    assert fleet.rehearse(_of(1002, "query.rehearse", lambda answer: None)) == 2
    assert fleet.of_sum() == []
    answered = {event["institution"]: event["answer"] for event in fleet.events}
    assert answered == {
        **dict.fromkeys(("anne", "mary"), "answered"),
        **{"jude": "declined", "luke": "no answer before the deadline"},
    }


def _resigned(fleet: Fleet, number: int, content: RecordDict, **changes: Any) -> RecordDict:
    """An answer whose envelope its institution has changed, and signed again."""
    name, kind = ("share", ShareEnvelope) if "share" in content else ("masked", SumEnvelope)
    signed = share_from(content).envelope() if name == "share" else Masked.from_content(content).envelope
    assert isinstance(signed, kind)
    text = replace(signed, **changes).text()
    record = {**content[name], "envelope": text, "signature": fleet.sites[number].identity.sign(text)}
    return RecordDict({**content, name: ConfigRecord(record)})


@pytest.mark.waits
@pytest.mark.parametrize("kind", [pytest.param("query.rehearse", marks=pytest.mark.waits), "query.rehearse_sum"])
def test_the_server_takes_no_envelope_of_a_round_in_a_rehearsal(fleet: Fleet, kind: str) -> None:
    def change(answer: Callable[[], Message]) -> Message:
        reply = answer()
        what = "share" if "share" in reply.content else "sum"
        reply.content = _resigned(fleet, 1, reply.content, what=what)
        return reply

    if kind == "query.rehearse":
        assert fleet.rehearse(_of(1001, kind, change)) == 3
        told = next(event["answer"] for event in fleet.events if event.get("institution") == "jude")
    else:
        with pytest.raises(PolicyError, match="jude: envelope: not an answer"):
            fleet.rehearse(_of(1001, kind, change))
        [told] = fleet.of_sum()
    assert "envelope: not an answer to this ask" in told


@pytest.mark.waits
def test_what_is_signed_in_a_rehearsal_is_no_receipt_and_names_no_row(fleet: Fleet) -> None:
    """No receipt of it is one for ACK, and no envelope of it names a row; test_hostile_rehearsals.py has the shares."""
    fleet.rehearse()
    shares = [share_from(RecordDict({"share": reply.content["share"]})) for reply in fleet.replies[:4]]
    masked, site = Masked.from_content(fleet.replies[4].content), fleet.sites[0]
    assert site.identity.signed_by_me(masked.envelope.text(), masked.signature)
    require_own_rows(Statement.of(shares), site)
    ask = ask_for_sum(_ask_of(fleet), Statement.of(shares), 1e11)
    acknowledge_receipt(replace(ask, receipt=masked.receipt()), site)
    assert not [row for row, _ in site.ledger.rows() if row["kind"] == "ack"]


def _ask_of(fleet: Fleet) -> Ask:
    return Ask.from_content(fleet.asks[0].content)


CHANGED: dict[str, dict[str, Any]] = {
    "another round": {"round": 2},
    "another lineage": {"lineage": "cd" * 16},
    "another adapter": {"input_sha256": "0" * 64},
    "past its deadline": {"deadline_unix": 1.0},
}


@pytest.mark.waits
@pytest.mark.parametrize("name", CHANGED)
def test_masks_are_given_for_the_rehearsal_that_is_held(fleet: Fleet, name: str) -> None:
    def change(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        if message.metadata.message_type == "query.rehearse_sum":
            message.content["ask"] = ConfigRecord({**message.content["ask"], **CHANGED[name]})
        return 0.0, answer()

    with pytest.raises(PolicyError, match="anne: declined; jude: declined; luke: declined; mary: declined"):
        fleet.rehearse(change)


@pytest.mark.waits
def test_a_server_that_does_not_look_at_the_sum_is_caught(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    check = partial(test_a_member_that_masks_another_way_is_seen_before_the_first_round, fleet, _wrong_sign)
    require_caught(monkeypatch, rehearsals, ("if not total(shares).any():", "if True:", check))
