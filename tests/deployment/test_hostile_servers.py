"""A server that asks for what it may not: every client declines, its ledger stays as it was, and it goes on."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from support.deployment import POLICY, Deployment, deployed
from support.faults import judge, private_records, rounds_charged, run_file
from support.hostile_server import as_step, write_script
from support.installations import start_state
from support.zygote import Zygote

from confide.common.config.run import RunConfig, load_run, lock
from confide.common.model.base_models import hash_model
from confide.common.model.families import with_targets
from confide.common.protocol.asks import Ask, Finished
from confide.common.protocol.versions import own_versions
from confide.common.protocol.wire import sha256
from confide.common.tensors import State, dump_state

LINEAGE = "ab" * 16
Answers = dict[str, dict[str, list[str]]]
# Bounds alone (jude), and an approval by hand besides (mary).
_BOUNDS = POLICY.replace("max_rounds = 1000", "max_rounds = 40").replace(
    "noise_multiplier = 0.1", "noise_multiplier = 1"
)


def _ask(run: RunConfig, number: int, state: State, change: Callable[[dict[str, Any]], None] | None = None) -> Ask:
    """An ask in due form; of a run that no configuration would let through, where ``change`` says so."""
    content = json.loads(run.canonical_json())
    if change:
        change(content)
    run_json = json.dumps(content, sort_keys=True, separators=(",", ":")) if change else run.canonical_json()
    payload = dump_state(state) if number else b""
    hashes = (sha256(run_json.encode()), sha256(payload))
    return Ask(run.study.name, LINEAGE, number, run_json, *hashes, time.time() + 600, adapter=payload)


def _set(section: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[section].update({key: value})


# What another run would say, by a name; each is offered, and asked for in round 2.
_RUNS: dict[str, Callable[[dict[str, Any]], None]] = {
    "zero noise": _set("privacy", "noise_multiplier", 0.0),
    "little noise": _set("privacy", "noise_multiplier", 0.5),
    "no privacy": _set("privacy", "unit", "none"),
    "10,000 rounds": _set("federation", "num_rounds", 10_000),
    "another base model": _set("model", "sha256", "0" * 64),
    "no base model": _set("model", "sha256", None),
    "another unit": _set("privacy", "unit", "group"),
    "a large delta": _set("privacy", "target_delta", 0.1),
    "a rank beyond all": _set("adapter", "rank", 10**6),
    # Within the policy; but the study has its plan.
    "another plan: less noise": _set("privacy", "noise_multiplier", 3.0),
    "another plan: more noise": _set("privacy", "noise_multiplier", 5.0),
    "another plan: sampling": _set("local", "sampling_probability", 0.6),
    "another plan: clip": _set("privacy", "clip_norm", 2.0),
    "another plan: steps": _set("local", "steps", 2),
}


def _bad_states(state: State) -> dict[str, State]:
    first, *others = sorted(state)
    return {
        "nan": {**state, first: np.full_like(state[first], np.nan)},
        "huge": {**state, first: np.full_like(state[first], 1e9)},
        "another rank": {name: np.repeat(value, 2, axis=-1) for name, value in state.items()},
        "an extra key": {**state, "extra": np.zeros(1, "f4")},
        "a missing key": {name: state[name] for name in others},
    }


def _hostile_steps(run: RunConfig, state: State) -> Iterator[dict[str, Any]]:
    for name, change in _RUNS.items():
        yield as_step(f"offer of {name}", "query.offer", _ask(run, 0, state, change).content())
        yield as_step(f"ask for {name}", "train", _ask(run, 2, state, change).content())
    for name, bad in _bad_states(state).items():
        yield as_step(f"adapter with {name}", "train", _ask(run, 2, bad).content())
    good = _ask(run, 2, state)
    for name, ask in {
        "round 0": _ask(run, 0, state),
        "a round beyond the last": _ask(run, run.federation.num_rounds + 1, state),
        "a deadline that has passed": replace(good, deadline_unix=time.time() - 1),
        "another study's name": replace(good, study="others"),
        "a lineage of no form": replace(good, lineage="../.."),
        "hashes of something else": replace(good, run_sha256="0" * 64),
    }.items():
        yield as_step(name, "train", ask.content())
    yield as_step("counts that nobody shares", "evaluate", good.content())
    garbage = {"ask": ConfigRecord({**own_versions(), "x": 1.5}), "y": ConfigRecord({"z": b"z"})}
    yield as_step("garbage", "train", RecordDict(garbage))
    yield as_step("no versions", "train", RecordDict({"ask": ConfigRecord({"x": 1.5})}))
    yield as_step("a kind that is none of ours", "query.bundle", good.content())
    yield as_step("a kind of Flower's", "train.secagg", good.content())
    finished = Finished("small", LINEAGE, run.sha256(), "", {"adapter_config.json": b"{}"}).content()
    finished["files"] = ConfigRecord({"../../../escaped": b"x"})
    yield as_step("a file outside the folder", "query.done", finished)


def _hostile_ends(run: RunConfig) -> Iterator[dict[str, Any]]:
    """Whatever comes with it, such a message ends the run: these come last."""
    junk = {"README.md": b"x" * 200_000, "run.json": b"not json"}
    for name, lineage, files in (
        ("a finished adapter of a run that never was", "cd" * 16, junk),
        ("junk as a finished adapter", LINEAGE, junk),
        ("a finished adapter without its tensors", LINEAGE, {"run.json": run.canonical_json().encode()}),
    ):
        yield as_step(name, "query.done", Finished("small", lineage, run.sha256(), "", files).content())


@pytest.fixture(scope="module")
def seen(
    tmp_path_factory: pytest.TempPathFactory, zygote: Zygote, base_folder: Path
) -> Iterator[tuple[Deployment, Answers]]:
    """The answers of both institutions to every step, between two honest rounds."""
    with deployed(tmp_path_factory.mktemp("hostile"), zygote) as deployment:
        path = run_file(deployment.folder, base_folder, rounds=4)
        base = hash_model(base_folder)
        run = lock(with_targets(load_run(path), base_folder), base)
        policy = _BOUNDS.replace('["any"]', json.dumps([base]))
        deployment.add("jude", private_records(), policy)
        site = deployment.add("mary", private_records(), policy.replace("approval = false", "approval = true"))
        deployment.confide("client", "approve", "small", "--run", path, "--site", site)
        state, script = start_state(run), deployment.folder / "script"
        ranked = run.model_copy(update={"adapter": run.adapter.model_copy(update={"rank": 8})})
        write_script(
            script,
            [
                [as_step("honest offer", "query.offer", _ask(run, 0, state).content())],
                [as_step("honest round 1", "train", _ask(run, 1, state).content())],
                [*_hostile_steps(run, state)],
                [as_step("a rank that nobody approved", "train", _ask(ranked, 3, start_state(ranked)).content())],
                [as_step("honest round 2", "train", _ask(run, 2, state).content())],
                [*_hostile_ends(run)],
            ],
        )
        deployment.start_server({"hostile_server": str(script)})
        deployment.start_client("mary")
        deployment.start_client("jude")
        assert deployment.ended(deployment.propose(path))["status"] == "completed"
        judge(deployment)
        yield deployment, json.loads(script.with_suffix(".answers").read_text(encoding="utf-8"))


_HONEST = {"honest offer": ["accepted"], "honest round 1": ["update"], "honest round 2": ["update"]}


def test_an_honest_ask_is_answered_before_and_after(seen: tuple[Deployment, Answers]) -> None:
    _, answers = seen
    assert {name: answers[name] for name in _HONEST} == {
        name: {"mary": kinds, "jude": kinds} for name, kinds in _HONEST.items()
    }


def test_everything_else_is_declined_and_no_reason_is_given(seen: tuple[Deployment, Answers]) -> None:
    _, answers = seen
    hostile = {name: answer for name, answer in answers.items() if name not in _HONEST}
    assert len(hostile) > 40
    assert {name for name, answer in hostile.items() if answer.keys() != {"mary", "jude"}} == set(), "no answer"
    by_hand = hostile.pop("a rank that nobody approved")
    assert by_hand["mary"] == ["declined"], "an approval binds every value of the run"
    assert hostile.pop("no versions") == {"mary": ["version"], "jude": ["version"]}, "versions are public"
    for name, answer in hostile.items():
        assert answer["jude"] == ["declined"], name
        assert answer["mary"] in (["declined"], ["waiting"]), name  # waiting: for a person, whatever the policy says


def test_the_ledger_holds_the_honest_rounds_and_nothing_else(seen: tuple[Deployment, Answers]) -> None:
    deployment, _ = seen
    assert rounds_charged(deployment, "mary") == [1, 2]
    assert rounds_charged(deployment, "jude") == [1, 3, 2]  # its bounds say nothing of a rank
    for name in ("mary", "jude"):
        assert [row["kind"] for row in deployment.rows(name)].count("open") == 1


def test_the_reasons_stay_at_the_institution(seen: tuple[Deployment, Answers]) -> None:
    deployment, _ = seen
    refusals = (deployment.folder / "jude" / "state" / "refusals.jsonl").read_text(encoding="utf-8")
    policy = ("max_rounds", "min_noise_multiplier", "base_models", "with another plan", "allow_no_privacy")
    finished = ("reserved nothing for such a run", "run.json is not the run", "its files are ['run.json']")
    for reason in (*policy, *finished):
        assert reason in refusals
        for path in (deployment.folder / "srv").rglob("*.json*"):
            assert reason not in path.read_text(encoding="utf-8"), path
    assert not list(deployment.folder.rglob("*escaped*"))


def test_nothing_of_a_hostile_adapter_is_kept(seen: tuple[Deployment, Answers]) -> None:
    deployment, _ = seen
    assert not list(deployment.folder.glob("*/models"))
