"""Explanations: the shares of tokens add up to the value less its baseline, and each stands at its characters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.kinds import RECORDS, of_kind, task_of
from support.methods import run_with, task_for
from support.sites import random_state

from confide.common.config.run import RunConfig
from confide.common.data.batches import collate, length
from confide.common.errors import InputError
from confide.common.explanation import attributions
from confide.common.explanation.explaining import explanation, require_explainable
from confide.common.forms.entities import entities
from confide.common.model.adapter import get_state, set_state
from confide.common.model.evaluation import answer
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tasks.token_classification import TokenClassification

EXPLAINED = (
    "text-classification",
    "text-classification, pair",
    "multi-label-classification",
    "scoring",
    "scoring, pair",
    "token-classification",
    "token-classification, spans",
)
REFUSED = ("causal-lm", "seq2seq", "question-answering", "ranking", "relation-classification")
Load = Callable[[str], WarmModel]


@pytest.fixture
def of(make_run: Callable[..., RunConfig]) -> Load:
    def load(kind: str) -> WarmModel:
        model = warm_model(of_kind(make_run(), kind))
        set_state(model.module, random_state(model))
        return model

    return load


def _records(model: WarmModel, kind: str) -> list[dict[str, Any]]:
    return [{name: record[name] for name in model.task.inputs()} for record in RECORDS[kind]]


def _explained(model: WarmModel, kind: str) -> list[tuple[dict[str, Any], Any, list[dict[str, Any]]]]:
    records = _records(model, kind)
    answers = answer(model, records)
    return [(record, found, explanation(model, record, found)) for record, found in zip(records, answers, strict=True)]


@pytest.mark.parametrize("kind", EXPLAINED)
def test_the_shares_add_up_to_the_value_less_its_baseline(kind: str, of: Load) -> None:
    parts = [part for _, _, explained in _explained(of(kind), kind) for part in explained]
    assert parts
    for part in parts:
        shares = [token["attribution"] for token in part["tokens"]]
        largest = max(map(abs, shares))
        assert largest > 0
        assert sum(shares) == pytest.approx(part["value"] - part["baseline"], abs=0.03 * largest)


@pytest.mark.parametrize("method", ["ia3", "head", "prompt-tuning", "prefix-tuning"])
def test_the_shares_add_up_under_another_method(
    method: str, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    model = warm_model(run_with(make_run, method, base_folder, task_for(method, "bert")))
    start, stream = get_state(model.module), np.random.default_rng(1)
    moved = {name: (v + stream.normal(0, 0.3, v.shape)).astype(np.float32) for name, v in start.items()}
    set_state(model.module, moved)
    [part] = explanation(model, {"text": "the film was good"}, "positive")
    shares = [token["attribution"] for token in part["tokens"]]
    assert sum(shares) == pytest.approx(part["value"] - part["baseline"], abs=0.03 * max(map(abs, shares)))


@pytest.mark.parametrize("kind", EXPLAINED)
def test_each_answer_has_its_explanation(kind: str, of: Load) -> None:
    model = of(kind)
    for record, prediction, explained in _explained(model, kind):
        if isinstance(model.task, TokenClassification):
            found = [(part["entity"], part["first_word"], part["last_word"]) for part in explained]
            answered = {**record, model.task.answers()[0]: prediction}
            assert found == list(entities(model.task.truth(answered)))
        elif "score" in explained[0]:
            assert [part["score"] for part in explained] == [prediction]
        else:
            labels = prediction if isinstance(prediction, list) else [prediction]
            assert [part["label"] for part in explained] == labels


@pytest.mark.parametrize("kind", EXPLAINED)
def test_each_share_stands_at_the_characters_of_its_token(kind: str, of: Load) -> None:
    model = of(kind)
    for record, _, explained in _explained(model, kind):
        for part in explained:
            for token in part["tokens"]:
                text = record[token["column"]]
                whole = " ".join(text) if isinstance(text, list) else text
                assert whole[token["start"] : token["end"]] == token["text"] != ""
            columns = {token["column"] for token in part["tokens"]}
            assert columns == set(record)


@pytest.mark.parametrize("kind", ["text-classification", "text-classification, pair", "multi-label-classification"])
def test_the_value_is_the_logit_of_the_label(kind: str, of: Load) -> None:
    model = of(kind)
    for record, _, explained in _explained(model, kind):
        example = model.task.examples(record, model.tokenizer)[0]
        with torch.no_grad():
            batch = collate([example], length(example), model.pads, model.device)
            logits = model.task.logits(model.module, batch)[0].tolist()  # type: ignore[attr-defined]
        for part in explained:
            number = model.task.labels.index(part["label"])  # type: ignore[attr-defined]
            assert part["value"] == pytest.approx(logits[number], abs=1e-4)


def test_the_value_of_an_unclamped_score_is_the_score(of: Load) -> None:
    model = of("scoring")
    for _, prediction, explained in _explained(model, "scoring"):
        assert min(max(explained[0]["value"], -4.0), 4.0) == pytest.approx(prediction, abs=1e-4)


def test_the_value_of_an_entity_is_the_sum_of_its_tags(of: Load) -> None:
    model, kind = of("token-classification"), "token-classification"
    task = model.task
    assert isinstance(task, TokenClassification)
    seen = 0
    for record in _records(model, kind):
        explained = explanation(model, record, ["B-thing", "I-thing", "O", "B-quality"][: len(record["tokens"])])
        example = task.examples(record, model.tokenizer)[0]
        with torch.no_grad():
            logits = task.logits(model.module, collate([example], length(example), model.pads, model.device))[0]
        for part in explained:
            words = range(part["first_word"], part["last_word"] + 1)
            tags = [f"{'I' if word > part['first_word'] else 'B'}-{part['entity']}" for word in words]
            places = [example["word"].index(word + 1) for word in words]
            pairs = zip(places, tags, strict=True)
            expected = sum(float(logits[place, task.tags.index(tag)]) for place, tag in pairs)
            assert part["value"] == pytest.approx(expected, abs=1e-3)
            seen += 1
    assert seen == 3


def test_an_entity_of_a_later_window_is_explained_there(of: Load) -> None:
    model = of("token-classification")
    record = {"tokens": ["film", "good", "bad"] * 40}
    tags = ["O"] * 119 + ["B-thing"]
    part = explanation(model, record, tags)[0]
    assert part["last_word"] == 119
    assert part["tokens"][-1]["end"] == len(" ".join(record["tokens"]))
    assert part["tokens"][0]["start"] > 0


def test_a_text_of_special_tokens_alone_has_no_shares(of: Load) -> None:
    part = explanation(of("text-classification"), {"text": ""}, "positive")[0]
    assert (part["tokens"], part["value"]) == ([], part["baseline"])


def test_more_steps_are_taken_until_the_shares_add_up(of: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = of("text-classification")
    record = _records(model, "text-classification")[0]
    monkeypatch.setattr(attributions, "TOLERANCE", 1e-4)

    def gap(*steps: int) -> float:
        monkeypatch.setattr(attributions, "_STEPS", steps)
        part = explanation(model, record, "positive")[0]
        return abs(sum(token["attribution"] for token in part["tokens"]) - part["value"] + part["baseline"])

    assert gap(1, 256) < gap(1) / 2
    assert gap(256, 1) < gap(1) / 2


@pytest.mark.parametrize("kind", REFUSED)
def test_another_kind_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(InputError, match=f"task.kind = '{kind}' cannot be explained"):
        require_explainable(task_of(kind))


def test_without_captum_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum", None)
    with pytest.raises(InputError, match=r"pip install '\.\[explain\]' in a checkout"):
        require_explainable(task_of("scoring"))
