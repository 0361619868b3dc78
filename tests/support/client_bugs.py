"""Known mistakes in what leaves, in ledger and release, each with the check that must fail at it."""

import gzip
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from support import guarantees, ledger_guarantees
from support.coins import TestCoins
from support.step_bugs import Plant, PlantedBug

from confide.client.answers import app, offer
from confide.client.answers import round as round_module
from confide.client.privacy import chain, decision, ledger, release, rollback, row_kinds, rules
from confide.client.training import shares
from confide.common.failpoints import failpoint
from confide.common.privacy import step
from confide.common.privacy.coins import Coins
from confide.common.protocol import answers, transfer

# What leaves


def _coins_of_the_server(patch: pytest.MonkeyPatch) -> None:
    """A generator seeded by what the run says, as one seeds everything else."""
    real_train, real_validate = round_module.train, round_module.validate
    patch.setattr(round_module, "train", lambda work, model, units, coins: real_train(work, model, units, TestCoins(7)))
    patch.setattr(round_module, "validate", lambda *rest: real_validate(*rest[:-1], TestCoins(7)))


def _error_told(as_value: Callable[[str], Any]) -> Plant:
    """Tell the server why, as everybody would like to know."""

    def guarded(answer: Any, message: Any, site: Any, client: Any) -> Any:
        try:
            return answer(message.content, site, client)
        except Exception as error:  # noqa: BLE001 - as the product does
            return RecordDict({"declined": ConfigRecord({"reason": as_value(str(error))})})

    return lambda patch: patch.setattr(app, "_guarded", guarded)


def _error_for_flower(patch: pytest.MonkeyPatch) -> None:
    """Let it through to Flower's runtime, which sends its text."""
    patch.setattr(app, "declined", lambda: (_ for _ in ()).throw(ValueError("an error is an error")))


def _counted_units(patch: pytest.MonkeyPatch) -> None:
    """Declare what there is, instead of what somebody typed."""
    real, found = shares.split_records, list[int]()

    def split_records(records: list[Any], *rest: Any) -> Any:
        found[:] = [len(records)]  # before the split: a keyed hash shares them out anew in every study
        return real(records, *rest)

    patch.setattr(shares, "split_records", split_records)
    patch.setattr(offer, "Acceptance", lambda name, declared, key: answers.Acceptance(name, found[0], key))


def _count_beside_the_tensors(patch: pytest.MonkeyPatch) -> None:
    """`num_examples`, as every framework has it."""

    def encode(state: Any, form: Any) -> bytes:
        return transfer.encode({**state, "num_examples": np.zeros(1, np.float32)}, form)

    patch.setattr(round_module, "encode", encode)


def _scale_of_the_signal(patch: pytest.MonkeyPatch) -> None:
    """The range of int8 is that of the sum before the noise, which is a better fit."""
    real, largest = step.add_noise, []

    def add_noise(sum_P: Any, plan: Any, coins: Any) -> Any:
        largest[:] = [np.abs(sum_P).max() / plan.expected_batch_size]
        return real(sum_P, plan, coins)

    def encode(state: Any, form: Any) -> bytes:
        return transfer.encode({name: np.clip(value, -largest[0], largest[0]) for name, value in state.items()}, form)

    patch.setattr(step, "add_noise", add_noise)
    patch.setattr(round_module, "encode", encode)


def _rounded_by_private_coins(patch: pytest.MonkeyPatch) -> None:
    real = transfer._round
    patch.setattr(transfer, "_round", lambda values, seed: real(values, os.urandom(32)))


def _count_as_an_id(patch: pytest.MonkeyPatch) -> None:
    real = round_module.seal_envelope

    def seal(*rest: Any) -> Any:
        return replace(real(*rest), update_id="20")

    patch.setattr(round_module, "seal_envelope", seal)


def _labels_seen(patch: pytest.MonkeyPatch) -> None:
    """No answer where a class has few records, so as not to train on next to nothing."""
    real = shares.prepare

    def prepare(data: Any, compute: Any, model: Any, *, joining: bool) -> Any:
        labels = [record["label"] for record in data.records(model.task)]
        if min(labels.count(label) for label in model.task.labels) < 6:
            raise ValueError("too few records of a class")
        return real(data, compute, model, joining=joining)

    patch.setattr(shares, "prepare", prepare)


# Ledger and release


def _charged_at_the_seal(patch: pytest.MonkeyPatch) -> None:
    """What was never sent cost nothing."""
    real, prices = dict(row_kinds._KINDS), {}

    def reserve(account: Any, row: Any, row_hash: str) -> None:
        prices[row["number"]] = (row["study"], row["steps"])
        real["reserve"](account, {**row, "steps": 0}, row_hash)

    def seal(account: Any, row: Any, row_hash: str) -> None:
        study, steps = prices[row["reserve"]]
        account.studies[study].reserved_steps += steps
        real["seal"](account, row, row_hash)

    patch.setitem(row_kinds._KINDS, "reserve", reserve)
    patch.setitem(row_kinds._KINDS, "seal", seal)


def _closed_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = row_kinds._KINDS["close"]

    def close(account: Any, row: Any, row_hash: str) -> None:
        real(account, row, row_hash)
        account.studies[row["study"]].reserved_steps = 0

    patch.setitem(row_kinds._KINDS, "close", close)


def _three_attempts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "_MAX_ATTEMPTS", 3)


def _cap_of_the_opening(patch: pytest.MonkeyPatch) -> None:
    real = ledger.may_reserve
    patch.setattr(ledger, "may_reserve", lambda account, *rest: real(account, *rest[:-1], account.opened_under))


def _hashes_not_computed(patch: pytest.MonkeyPatch) -> None:
    """Believe the hash that stands beside a row."""

    def catch_up(self: Any) -> None:
        for row, row_hash in self._read(self.account.number):
            row_kinds.add_row(self.account, row, row_hash)

    patch.setattr(chain.Chain, "_catch_up", catch_up)


def _witnesses_not_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rollback.Witnesses, "check", lambda self, rows: None)


def _release_in_another_order(order: str) -> Plant:
    """One of: make, reserve, put, seal; reserve, make, seal, put."""

    def releasing(request: Any, ledger: Any, outbox: Any, agree: Any, make: Any) -> bytes:
        done: dict[str, Any] = {"reserve": None}

        def reserve() -> Any:
            facts = {"input_sha256": request.input_sha256, "run_sha256": request.run_sha256, "coins": "os"}
            return ledger.reserve(request.key, (request.num_steps, request.num_releases), agree()[0], facts)

        def seal() -> None:
            failpoint("before-seal")
            ledger.seal(done["reserve"], hashlib.sha256(done["make"]).hexdigest(), 1)
            failpoint("after-seal")

        lines = {
            "make": lambda: make(done["reserve"], None),
            "reserve": reserve,
            "put": lambda: outbox.put(done["reserve"].answer_file, done["make"]),
            "seal": seal,
        }
        for earlier in ledger.account().answers.get(request.key, []):
            if earlier.sealed_sha256:
                return release._sealed(earlier, outbox)
        for name in order.split(", "):
            done[name] = lines[name]()
        return bytes(done["make"])

    return lambda patch: patch.setattr(release, "release", releasing)


def _every_attempt_is_new(patch: pytest.MonkeyPatch) -> None:
    """No answer is recognised as sealed."""
    patch.setitem(row_kinds._KINDS, "seal", lambda account, row, row_hash: None)


def _file_taken_for_its_seal(patch: pytest.MonkeyPatch) -> None:
    """It is complete, so why compute it again."""
    real = release.release

    def releasing(request: Any, ledger: Any, outbox: Any, *rest: Any) -> bytes:
        for earlier in ledger.account().answers.get(request.key, []):
            if content := outbox.get(earlier.answer_file):
                return bytes(content)
        return real(request, ledger, outbox, *rest)

    patch.setattr(release, "release", releasing)


def _plan_not_compared(patch: pytest.MonkeyPatch) -> None:
    real = ledger.may_open

    def may_open(account: Any, name: str, *rest: Any) -> bool:
        return name not in account.studies and real(account, name, *rest)

    for place in (ledger, decision):  # either alone would refuse
        patch.setattr(place, "may_open", may_open)


def _key_restored_on_retry(patch: pytest.MonkeyPatch) -> None:
    """Kept beside the round, so that the retry gives the same update."""
    real = round_module.train
    patch.setattr(round_module, "train", lambda work, model, units, coins: real(work, model, units, Coins(bytes(32))))


LEAVING_BUGS: dict[str, PlantedBug] = {
    "coins of a server-chosen seed": (_coins_of_the_server, guarantees.check_no_server_chooses_the_coins),
    "an error text that leaves": (_error_told(str), guarantees.check_no_private_text_leaves),
    "an error text that leaves packed": (
        _error_told(lambda text: gzip.compress(text.encode())),
        guarantees.check_no_private_text_leaves,
    ),
    "an error that Flower answers": (_error_for_flower, guarantees.check_no_private_text_leaves),
    "number of units in an acceptance": (_counted_units, guarantees.check_one_unit_changes_no_message),
    "number of units beside the tensors": (_count_beside_the_tensors, guarantees.check_one_unit_changes_no_message),
    "a scale from before the noise": (
        _scale_of_the_signal,
        guarantees.check_an_update_is_a_function_of_its_noised_change,
    ),
    "rounding by private coins": (
        _rounded_by_private_coins,
        guarantees.check_an_update_is_a_function_of_its_noised_change,
    ),
    "number of units as an id": (_count_as_an_id, guarantees.check_one_unit_changes_no_message),
    "participation by labels": (_labels_seen, guarantees.check_one_unit_changes_no_message),
}

RELEASE_BUGS: dict[str, PlantedBug] = {
    "refund after a crash": (_charged_at_the_seal, ledger_guarantees.check_a_crash_refunds_nothing),
    "refund by CLOSE": (_closed_is_forgotten, ledger_guarantees.check_a_crash_refunds_nothing),
    "a third attempt": (_three_attempts, ledger_guarantees.check_a_round_has_one_retry_at_most),
    "the cap under which a study was opened": (
        _cap_of_the_opening,
        ledger_guarantees.check_a_lowered_cap_holds_from_the_next_charge,
    ),
    "hashes that are not computed": (_hashes_not_computed, ledger_guarantees.check_an_edited_row_is_refused),
    "witnesses that are not asked": (_witnesses_not_asked, ledger_guarantees.check_an_old_ledger_is_refused),
    "computed before it is charged": (
        _release_in_another_order("make, reserve, put, seal"),
        ledger_guarantees.check_the_charge_comes_before_the_computation,
    ),
    "sealed before it is written": (
        _release_in_another_order("reserve, make, seal, put"),
        ledger_guarantees.check_a_sealed_answer_is_never_lost,
    ),
    "a resend that is computed again": (_every_attempt_is_new, ledger_guarantees.check_a_resend_is_identical_and_free),
    "a file taken for its SEAL": (
        _file_taken_for_its_seal,
        ledger_guarantees.check_an_answer_without_a_seal_is_never_sent,
    ),
}

CLIENT_BUGS: dict[str, PlantedBug] = {
    "noise lowered by the server in mid-study": (
        _plan_not_compared,
        ledger_guarantees.check_no_server_lowers_the_noise_in_mid_study,
    ),
    "key restored on retry": (_key_restored_on_retry, ledger_guarantees.check_a_retry_draws_everything_anew),
}
