"""An institution's ClientApp against a hostile server and hostile data: one answer, and nothing private in it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from support.sites import make_records
from support.speed import CPU

from confide.client.answers import round as round_module
from confide.client.answers.app import make_client_app
from confide.client.config import SiteConfig
from confide.client.data.dataset_claims import People
from confide.client.data.private_data import PrivateData
from confide.client.privacy.database import Database
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.terms import Terms
from confide.client.site.installation import Site
from confide.common.config.run import RunConfig, check, lock
from confide.common.model import warm_model as warm_model_module
from confide.common.model.adapter import get_state, reset
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import warm_model
from confide.common.protocol.answers import Acceptance, Update
from confide.common.protocol.asks import Ask
from confide.common.protocol.signatures import Identity
from confide.common.protocol.versions import own_versions
from confide.common.protocol.wire import sha256
from confide.common.tasks import Task
from confide.common.tensors import State, dump_state
from confide.simulations.engines import grid as grid_module
from confide.simulations.engines.grid import InProcessGrid, SkippingClock
from confide.simulations.sites.simulated_sites import MemoryOutbox

MakeRun = Callable[..., RunConfig]
ALLOWS = {
    "max_epsilon": 100.0,
    "max_delta": 1e-3,
    "min_noise_multiplier": 0.1,
    "max_steps": 1000,
    "max_rounds": 1000,
    "max_sampling_probability": 1.0,
    "min_clip_norm": 0.01,
    "max_head_weight": 10.0,
    "min_release_seconds": 1.0,
    "base_models": ["any"],
    "require_approval": False,
}
CANARY = "Mrs Canary of 7 Example Street"


class Institution:
    """A site, its client on a grid, and every byte that ever left it."""

    def __init__(self, run: RunConfig, patch: pytest.MonkeyPatch) -> None:
        self.run, self.errors = run, []
        self.records: Callable[[Task], list[dict[str, Any]]] = lambda task: make_records(20)
        self.report: Callable[[BaseException], None] = self.errors.append
        self.dataset: dict[str, Any] = {"id": "people", "path": "nowhere.jsonl", "declared_units": 20}
        self.policy: dict[str, Any] = {**ALLOWS, "studies": [run.study.name]}
        self.kept: dict[str, tuple[Ledger, MemoryOutbox, People]] = {}
        self.left = b""
        inflate = grid_module.inflate_object_from_contents

        def spy(object_id: str, objects: dict[str, bytes], **settings: Any) -> Any:
            self.left += b"".join(objects.values())
            return inflate(object_id, objects, **settings)

        patch.setattr(grid_module, "inflate_object_from_contents", spy)
        self.grid = InProcessGrid(make_client_app(self.site_of), 1, SkippingClock())

    def site_of(self, context: Context) -> Site:
        content = {"institution": {"name": "st-mary"}, "dataset": self.dataset, "policy": self.policy}
        config = check(SiteConfig, content, "site.toml")
        if config.dataset.unit not in self.kept:  # a ledger's unit is fixed with its first row
            terms = Terms("people", config.dataset.unit, config.dataset.most_records)
            ledger = Ledger(Database(":memory:"), terms, lambda row, row_hash: None)
            self.kept[config.dataset.unit] = (ledger, MemoryOutbox(), People(":memory:"))
        ledger, outbox, people = self.kept[config.dataset.unit]
        data = PrivateData(config.dataset, self.records, b"s" * 32, people, Path("nowhere"))
        kept = {"ledger": ledger, "outbox": outbox, "shares": MemoryOutbox(), "report": self.report}
        return Site(config=config, identity=Identity(b"i" * 32), data=data, **kept)

    def ask(self, state: State | None = None, *, number: int = 1, **changes: Any) -> Ask:
        run_json = self.run.canonical_json()
        payload = dump_state(state if state is not None else start_state(self.run)) if number else b""
        hashes = (sha256(run_json.encode()), sha256(payload))
        ask = Ask(self.run.study.name, "ab" * 16, number, run_json, *hashes, 1e11, adapter=payload)
        return replace(ask, **changes)

    def tell(self, content: RecordDict, kind: str = "train") -> Message:
        message = self.grid.create_message(content, kind, 1000, "1", ttl=600.0)
        [reply] = self.grid.send_and_receive([message])
        return reply

    def declines(self, content: RecordDict, kind: str = "train") -> None:
        reply = self.tell(content, kind)
        assert not reply.has_error()
        assert list(reply.content) == ["declined"]
        assert reply.content["declined"] == ConfigRecord()
        assert CANARY.encode() not in self.left

    def offers(self) -> RecordDict:
        return self.ask(number=0).content()

    def updates(self, number: int = 1) -> State:
        from safetensors.numpy import load

        reply = self.tell(self.ask(number=number).content())
        assert not reply.has_error()
        assert list(reply.content) == ["update"], self.errors
        return load(Update.from_content(reply.content).payload)


def start_state(run: RunConfig) -> State:
    model = warm_model(run, CPU)
    reset(model.module, run.study.seed)
    return get_state(model.module)


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"sampling_probability": 1.0, "nominal_units": 20}), hash_model(base_folder))


@pytest.fixture
def site(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Institution:
    return Institution(run, monkeypatch)


def test_an_offer_is_accepted_with_public_values_only(site: Institution) -> None:
    reply = site.tell(site.offers(), "query.offer")
    assert Acceptance.from_content(reply.content) == Acceptance("st-mary", 20, Identity(b"i" * 32).public_hex())
    assert list(reply.content) == ["accepted"]


def test_an_update_is_finite_and_in_the_schema(site: Institution, run: RunConfig) -> None:
    update, state = site.updates(), start_state(run)
    assert {name: value.shape for name, value in update.items()} == {name: v.shape for name, v in state.items()}
    assert all(np.isfinite(value).all() and value.any() for value in update.values())


def test_two_updates_share_no_coins(site: Institution) -> None:
    first, second = site.updates(1), site.updates(2)
    assert all(not (first[name] == second[name]).any() for name in first)


# Other requests


def test_another_unit_is_declined(site: Institution, make_run: MakeRun) -> None:
    site.dataset |= {"unit": "group", "columns": {"group": "patient"}}
    site.declines(site.offers(), "query.offer")
    site.declines(site.ask().content())
    site.dataset = {"id": "people", "path": "nowhere.jsonl", "declared_units": 20}
    site.run = site.run.model_copy(update={"privacy": site.run.privacy.model_copy(update={"unit": "group"})})
    site.declines(site.offers(), "query.offer")
    site.declines(site.ask().content())
    assert "group" in str(site.errors[-1])


def test_no_privacy_is_declined_without_leave(site: Institution) -> None:
    site.run = site.run.model_copy(update={"privacy": site.run.privacy.model_copy(update={"unit": "none"})})
    site.declines(site.offers(), "query.offer")
    site.declines(site.ask().content())
    site.policy |= {"allow_no_privacy": True}
    assert site.updates()


def test_a_run_whose_noise_is_not_fixed_is_declined(site: Institution) -> None:
    site.run = site.run.model_copy(update={"privacy": site.run.privacy.model_copy(update={"noise_multiplier": None})})
    site.declines(site.ask().content())


def test_another_base_model_than_the_run_names_is_declined(site: Institution) -> None:
    state = start_state(site.run)
    for sha256_ in (None, "0" * 64):
        site.run = site.run.model_copy(update={"model": site.run.model.model_copy(update={"sha256": sha256_})})
        site.declines(site.ask(state).content())


def _changed(state: State, change: Callable[[np.ndarray], np.ndarray]) -> State:
    name = next(iter(state))
    return {**state, name: change(state[name])}


@pytest.mark.parametrize(
    "change",
    [
        lambda state: _changed(state, lambda value: np.full_like(value, np.nan)),
        lambda state: _changed(state, lambda value: np.full_like(value, 1e30)),
        lambda state: _changed(state, lambda value: value[:-1]),
        lambda state: {**state, "more": np.zeros(1, np.float32)},
        lambda state: dict(list(state.items())[1:]),
        lambda state: {},
    ],
    ids=["nan", "huge", "shape", "extra key", "missing key", "empty"],
)
def test_a_bad_adapter_is_declined(site: Institution, run: RunConfig, change: Callable[[State], State]) -> None:
    site.declines(site.ask(change(start_state(run))).content())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run_sha256", "0" * 64),
        ("input_sha256", "0" * 64),
        ("round", "1"),
        ("deadline_unix", 1),
        ("run_json", "{"),
        ("run_json", "[" * 100_000),
        ("more", 1),
    ],
)
def test_a_tampered_ask_is_declined(site: Institution, key: str, value: Any) -> None:
    for kind in ("train", "query.offer"):
        content = site.ask(number=int(kind == "train")).content()
        content["ask"][key] = value
        site.declines(content, kind)


@pytest.mark.parametrize(("key", "value"), [("protocol", 1), ("confide", "9.9.9"), ("flwr", "1.40.0"), ("flwr", None)])
def test_an_ask_of_other_versions_is_answered_with_ours_and_nothing_else(
    site: Institution, key: str, value: Any
) -> None:
    """Before anything else is looked at: another version may mean another thing by the same words."""
    for kind in ("train", "evaluate", "query.offer", "query.rehearse"):
        content = site.ask(number=int(kind != "query.offer"), run_json="{").content()
        del content["ask"][key]
        if value is not None:
            content["ask"][key] = value
        reply = site.tell(content, kind)
        assert dict(reply.content) == {"version": ConfigRecord(own_versions())}
        assert f"flwr '{own_versions()['flwr']}'" in str(site.errors[-1])
        assert str(value) in str(site.errors[-1])
    assert not site.kept or site.kept["record"][0].rows() == []


def test_a_changed_plan_under_its_own_hash_is_another_run(site: Institution, run: RunConfig) -> None:
    """Valid JSON with a key that does not exist, a lower bound broken, or a text of another kind."""
    for change in ({"secret": 1}, {"local": {"steps": 0}}, {"task": {"kind": "anything"}}):
        run_json = json.dumps({**json.loads(run.canonical_json()), **change})
        site.declines(site.ask(run_json=run_json, run_sha256=sha256(run_json.encode())).content())


def test_messages_of_another_form_are_declined(site: Institution) -> None:
    for content in (
        RecordDict(),
        RecordDict({"ask": ConfigRecord(own_versions())}),
        RecordDict({"ask": ConfigRecord(own_versions()), "adapter": ConfigRecord()}),
        RecordDict({"adapter": ConfigRecord({"safetensors": b""})}),
    ):
        site.declines(content)
        site.declines(content, "query.offer")


@pytest.mark.parametrize("kind", ["train", "evaluate", "query.offer", "query.rehearse", "query.done"])
def test_no_reply_says_when_it_was_made(site: Institution, kind: str) -> None:
    """Flower would write it into both fields, to the microsecond: ticks would hide nothing."""
    site.tell(site.offers(), "query.offer")
    for content in (site.ask().content(), RecordDict()):
        message = site.grid.create_message(content, kind, 1000, "1", ttl=600.0)
        [reply] = site.grid.send_and_receive([message])
        assert (reply.metadata.created_at, reply.metadata.ttl) == (message.metadata.created_at, 600.0)


# Hostile data, and errors that hold private texts


def test_an_error_with_a_private_text_is_the_same_answer(site: Institution) -> None:
    def fail(task: Task) -> list[dict[str, Any]]:
        raise ValueError(f"record 3: {CANARY}")

    site.records = fail
    site.declines(site.ask().content())
    assert CANARY in str(site.errors[0]), "the institution itself is told"


def test_a_model_that_fails_on_a_private_text_is_the_same_answer(
    site: Institution, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr("confide.client.answers.round.train", fail)
    site.declines(site.ask().content())
    monkeypatch.setattr("confide.client.training.shares.warm_model", fail)
    site.declines(site.ask().content())


def test_a_report_that_fails_is_the_same_answer(site: Institution) -> None:
    """A full disk must not turn a private text into the server's."""

    def fail(error: BaseException) -> None:
        raise OSError(f"No space left on device: {CANARY}")

    site.report = fail
    site.run = site.run.model_copy(update={"privacy": site.run.privacy.model_copy(update={"unit": "group"})})
    site.declines(site.ask().content())
    site.declines(site.offers(), "query.offer")


def test_a_site_that_cannot_be_read_is_the_same_answer(site: Institution) -> None:
    site.dataset = {"id": CANARY}
    site.declines(site.ask().content())
    site.declines(site.offers(), "query.offer")


@pytest.mark.parametrize(
    "poison",
    [
        {"text": f"{CANARY} \ud83d", "label": "positive"},
        {"text": "", "label": "positive"},
        {"text": f"{CANARY} \0", "label": "positive"},
        {"text": f"{CANARY} " + "long " * 10_000, "label": "negative"},
        {"text": "\u202e\u200b" * 50, "label": "negative"},
    ],
    ids=["lone surrogate", "empty", "nul", "long", "invisible"],
)
def test_no_record_stops_a_round(site: Institution, poison: dict[str, Any]) -> None:
    site.records = lambda task: [*make_records(10), poison]
    assert all(np.isfinite(value).all() for value in site.updates().values())
    assert CANARY.encode() not in site.left
    assert not site.errors


def test_no_group_key_stops_a_round(site: Institution) -> None:
    site.dataset |= {"unit": "group", "columns": {"group": "patient"}}
    site.run = site.run.model_copy(update={"privacy": site.run.privacy.model_copy(update={"unit": "group"})})
    keys = [None, "", 7, 7.5, "a", "\ud83d", ["list"], {"a": 1}]
    site.records = lambda task: [
        {**record, "group": key} for record, key in zip(make_records(len(keys)), keys, strict=True)
    ]
    assert site.updates()
    assert not site.errors


def test_no_data_at_all_is_still_an_update(site: Institution) -> None:
    site.records = lambda task: []
    assert all(np.isfinite(value).all() for value in site.updates().values())


def test_records_are_read_once_for_a_run(site: Institution) -> None:
    reads = []

    def read(task: Task) -> list[dict[str, Any]]:
        reads.append(task)
        return make_records(10)

    site.records = read
    site.updates(1)
    site.updates(2)
    assert len(reads) == 1


def test_a_round_has_one_answer_and_only_rounds_of_the_run_have_any(site: Institution) -> None:
    """Each answer draws new noise: an average of many would have none. So the same bytes are sent again."""
    ask = site.ask(number=1).content()
    assert site.tell(ask).content == site.tell(ask).content
    for number in (0, site.run.federation.num_rounds + 1):
        site.declines(replace(site.ask(), round=number).content())


def test_a_run_that_is_not_in_canonical_form_is_declined(site: Institution) -> None:
    """Its hash would be another for the same run, and nothing keyed by it would be found again."""
    text = site.run.canonical_json().replace(",", ", ")
    site.declines(site.ask(run_json=text, run_sha256=sha256(text.encode())).content())


def test_after_an_error_in_a_step_the_model_is_dropped(site: Institution, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opacus' hooks would keep the activations of that step, and give them to the next institution's."""

    def fail(*rest: object) -> State:
        raise RuntimeError("in mid-step")

    content = site.ask().content()
    assert warm_model_module._warm
    monkeypatch.setattr(round_module, "train", fail)
    site.declines(content)
    assert not warm_model_module._warm
