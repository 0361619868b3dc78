"""What an institution does with an ask, in order: it checks everything, then acts. Receipts are its own or nothing."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.coins import TestCoins
from support.installations import LINEAGE, Asking, kinds, update_of, write_site

from confide.client.site.installation import Site, open_site
from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model
from confide.common.protocol.answers import Update
from confide.common.protocol.asks import Finished
from confide.common.protocol.signatures import Identity

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    run = make_run(local={"sampling_probability": 1.0, "nominal_units": 20}, federation={"num_rounds": 6})
    return lock(run, hash_model(base_folder))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return open_site(write_site(tmp_path))


@pytest.fixture
def asking(run: RunConfig, site: Site) -> Asking:
    return Asking(run, lambda: site)


def rows(site: Site, kind: str) -> list[dict[str, Any]]:
    return [row for row, _ in site.ledger.rows() if row["kind"] == kind]


# In order


@pytest.mark.parametrize(
    "policy", [{"studies": []}, {"max_rounds": 5}, {"base_models": ["0" * 64]}, {"require_approval": True}], ids=str
)
def test_what_the_policy_refuses_touches_no_data(run: RunConfig, tmp_path: Path, policy: dict[str, Any]) -> None:
    """Nor claims people for a study that is refused, nor charges anything."""
    read = list[str]()
    site = open_site(write_site(tmp_path, policy=policy))
    looked_at = {
        "records": lambda task: read.append("records") or [],
        "check_file": lambda task: read.append("file"),
    }
    site = replace(site, data=replace(site.data, **looked_at))
    asking = Asking(run, lambda: site)
    for ask in (asking.offer, asking.update, asking.counts):
        assert kinds(ask()) in (["declined"], ["waiting"])
    assert (read, site.ledger.rows()) == ([], [])
    write_site(tmp_path)
    allowed = open_site(tmp_path / "site.toml")
    allowed = replace(allowed, data=replace(allowed.data, check_file=looked_at["check_file"]))
    assert kinds(Asking(run, lambda: allowed).offer()) == ["accepted"]
    assert read == ["file"], "what is allowed is looked at"


@pytest.mark.parametrize("transfer", ["float32", "float16"])
@pytest.mark.parametrize(("norm", "taken"), [(900.0, True), (1100.0, False)])
def test_an_adapter_is_taken_up_to_a_norm_of_1000(
    run: RunConfig, tmp_path: Path, norm: float, transfer: str, taken: bool
) -> None:
    """The number itself: what a server may choose is what can make a rounding grow, and honest runs stay below 400."""
    federation = run.federation.model_copy(update={"transfer": transfer})
    evaluation = run.evaluation.model_copy(update={"validation_every": 1})
    run = run.model_copy(update={"federation": federation, "evaluation": evaluation})
    site = open_site(write_site(tmp_path, policy={"share_metrics": "private"}))
    asking, stream = Asking(run, lambda: site), np.random.default_rng(0)
    state = {name: stream.standard_normal(value.shape) for name, value in asking.state.items()}
    whole = math.sqrt(sum(float(np.square(value).sum()) for value in state.values()))
    asking.state = {name: (value * norm / whole).astype(np.float32) for name, value in state.items()}
    for ask, answer in (
        (lambda: asking.send(asking.ask(1), "query.rehearse"), "rehearsed"),
        (asking.update, "update"),
        (asking.counts, "update"),
    ):
        assert (kinds(ask()) == ["declined"]) != taken, answer
    assert len(rows(site, "reserve")) == (2 if taken else 0)


def test_past_the_deadline_nothing_is_reserved(run: RunConfig, site: Site) -> None:
    asking = Asking(run, lambda: site, ClientProcess(now=lambda: 1000.0))
    for what in (asking.update, asking.counts):
        assert kinds(what(1, deadline_unix=999.0)) == ["declined"]
    assert site.ledger.rows() == []
    assert kinds(asking.update(1, deadline_unix=1000.0)) == ["update"]


def test_what_was_sealed_is_sent_again_whatever_became_of_policy_and_data(
    run: RunConfig, tmp_path: Path, site: Site, asking: Asking
) -> None:
    """It was paid for, and these bytes may be out already; nothing else is given."""
    first = asking.update()
    write_site(tmp_path, policy={"studies": []})
    (tmp_path / "notes.jsonl").unlink()
    later = Asking(run, lambda: open_site(tmp_path / "site.toml"))
    assert later.update() == first
    assert kinds(later.update(2)) == ["declined"]
    assert kinds(later.update(1, deadline_unix=1.0)) == ["declined"]
    assert len(rows(site, "reserve")) == 1


def test_another_input_or_another_run_is_another_answer(run: RunConfig, site: Site, asking: Asking) -> None:
    """A sealed answer is the answer to what was asked, and to nothing that looks like it."""
    first = update_of(asking.update())
    asking.state = {name: value + 1 for name, value in asking.state.items()}
    second = update_of(asking.update())
    assert second.envelope.input_sha256 != first.envelope.input_sha256
    assert second.payload != first.payload
    assert len(rows(site, "reserve")) == 2, "each is charged"
    assert kinds(asking.update(deadline_unix=5e10)) == ["update"]
    assert len(rows(site, "reserve")) == 2, "the deadline is no part of the question"


def test_a_round_is_answered_without_an_offer_and_opens_the_study(site: Site, asking: Asking) -> None:
    assert kinds(asking.update()) == ["update"]
    assert [row["steps"] for row in rows(site, "open")] == [6]


def test_an_offer_charges_nothing_and_opens_the_study_once(site: Site, asking: Asking) -> None:
    assert [kinds(asking.offer()) for _ in range(3)] == [["accepted"]] * 3
    assert len(rows(site, "open")) == 1
    assert rows(site, "reserve") == []


@pytest.mark.parametrize("readable", [True, False])
def test_the_end_of_a_run_does_not_touch_the_data_nor_does_a_round_after_it(
    run: RunConfig, tmp_path: Path, asking: Asking, readable: bool
) -> None:
    """Else a server would say that the run is over, ask on, and see whether the file can be read."""
    asking.offer()
    first = asking.update()
    data = tmp_path / "notes.jsonl"
    if not readable:
        data.rename(tmp_path / "elsewhere")
    done = Finished("test", LINEAGE, run.sha256(), "", {}).content()
    assert kinds(asking.send(done, "query.done")) == ["declined"], "it brings no adapter; the run is over all the same"
    assert kinds(asking.update(2)) == ["declined"]
    assert kinds(asking.update(2, lineage="cd" * 16)) == ["declined"]
    assert asking.update() == first, "what was sealed still comes"
    if not readable:
        (tmp_path / "elsewhere").rename(data)
    assert kinds(asking.offer()) == ["accepted"]
    assert kinds(asking.update(2)) == ["update"], "a server that was killed while it said so goes on with an offer"


def test_the_end_of_another_run_changes_nothing(tmp_path: Path, asking: Asking) -> None:
    asking.offer()
    (tmp_path / "notes.jsonl").unlink()
    assert kinds(asking.send(Finished("test", LINEAGE, "0" * 64, "", {}).content(), "query.done")) == ["declined"]
    assert kinds(asking.update()) == ["update"]


def test_a_changed_plan_is_another_study(run: RunConfig, site: Site, asking: Asking) -> None:
    """Noise lowered by the server in mid-study."""
    assert kinds(asking.update()) == ["update"]
    for section, changes in (
        ("privacy", {"noise_multiplier": 0.9}),
        ("privacy", {"clip_norm": 2.0}),
        ("local", {"sampling_probability": 0.9}),
        ("federation", {"num_rounds": 5}),
        ("evaluation", {"validation_every": 1}),
    ):
        changed = run.model_copy(update={section: getattr(run, section).model_copy(update=changes)})
        assert kinds(Asking(changed, lambda: site).update(2)) == ["declined"], changes
    assert len(rows(site, "reserve")) == 1


def test_an_ask_whose_run_is_of_another_study_is_declined(site: Site, asking: Asking) -> None:
    """Else one study's steps would be charged to another."""
    assert kinds(asking.update(study="small")) == ["declined"]
    assert site.ledger.rows() == []


def test_coins_that_a_test_injects_are_named_in_the_ledger(run: RunConfig, site: Site) -> None:
    Asking(run, lambda: site).update(1)
    Asking(run, lambda: site, ClientProcess(coins=lambda: TestCoins(0))).update(2)
    assert [row["coins"] for row in rows(site, "reserve")] == ["os", "test"]


def test_no_update_is_given_beyond_the_steps_of_the_plan(site: Site, asking: Asking) -> None:
    replies = [asking.update(number % 6 + 1, lineage=f"{number // 6:032x}") for number in range(9)]
    assert [kinds(reply) for reply in replies] == [["update"]] * 6 + [["declined"]] * 3
    assert len({update_of(reply).payload for reply in replies[:6]}) == 6


# Receipts


def test_a_receipt_of_its_own_marks_what_has_arrived(site: Site, asking: Asking) -> None:
    receipt = update_of(asking.update()).receipt()
    assert rows(site, "ack") == []
    for number in (2, 3):
        assert kinds(asking.update(number, receipt=receipt)) == ["update"]
        assert [row["reserve"] for row in rows(site, "ack")] == [rows(site, "reserve")[0]["number"]]


def test_an_offer_may_carry_the_last_receipt(site: Site, asking: Asking) -> None:
    receipt = update_of(asking.update()).receipt()
    assert kinds(asking.offer(receipt=receipt)) == ["accepted"]
    assert len(rows(site, "ack")) == 1


def _forged(update: Update) -> dict[str, str]:
    other = Identity(bytes(32)).sign(update.envelope.text())
    moved = replace(update.envelope, ledger_head="0" * 64)
    return {
        "another's signature": replace(update, signature=other).receipt(),
        "another head": replace(update, envelope=moved).receipt(),
        "no signature": replace(update, signature="0" * 128).receipt(),
    }


@pytest.mark.parametrize("name", ["another's signature", "another head", "no signature"])
def test_a_receipt_that_it_did_not_sign_is_ignored(site: Site, asking: Asking, name: str) -> None:
    forged = _forged(update_of(asking.update()))[name]
    assert kinds(asking.update(2, receipt=forged)) == ["update"]
    assert rows(site, "ack") == []


@pytest.mark.parametrize("receipt", ["{}", "not JSON", "[]", json.dumps({"envelope": "{}", "signature": "0" * 128})])
def test_what_is_no_receipt_is_ignored(asking: Asking, receipt: str) -> None:
    assert kinds(asking.update(receipt=receipt)) == ["update"]


def test_a_receipt_for_an_update_that_the_ledger_forgot_stops_everything(
    run: RunConfig, tmp_path: Path, site: Site, asking: Asking
) -> None:
    """Everything local was put back together; the server's copy, with our own signature, is what is left of it."""
    receipt = update_of(asking.update()).receipt()
    for leftover in [*(tmp_path / "state").glob("ledger.db*"), *(tmp_path / "state" / "outbox").rglob("*.answer")]:
        leftover.unlink()
    (tmp_path / "state" / "audit.jsonl").unlink()
    for anchor in (tmp_path / "state-anchor").iterdir():
        anchor.unlink()
    forgetful = open_site(tmp_path / "site.toml")
    later = Asking(run, lambda: forgetful)
    assert kinds(later.update(2, receipt=receipt)) == kinds(later.offer(receipt=receipt)) == ["declined"]
    assert forgetful.ledger.rows() == []
    assert "put back" in (tmp_path / "local" / "errors.log").read_text(encoding="utf-8")
