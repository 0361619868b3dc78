"""Multi-label classification: labels as files write them, the loss of each label, and what is counted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_fscore_support, precision_score
from support.kinds import RECORDS, of_kind, task_of
from support.tiny_bert import tiny_tokenizer
from torch.nn.functional import binary_cross_entropy_with_logits

from confide.common.config.run import RunConfig
from confide.common.data.batches import collate
from confide.common.forms.labels import NamedCode
from confide.common.model.adapter import get_state, set_state
from confide.common.model.warm_model import warm_model

KIND = "multi-label-classification"
TASK = task_of(KIND)


@pytest.mark.parametrize(
    ("labels", "truth"),
    [
        ([], []),
        (["2", 1], ["1", "2"]),
        (np.array(["good"], dtype=object), ["good"]),
        ([2.0, "2"], ["2"]),
        ([NamedCode(7, "good")], ["good"]),
    ],
)
def test_labels_are_read_however_a_file_writes_them(labels: Any, truth: list[str]) -> None:
    task = task_of(KIND, labels=["1", "good", "2"])
    record = {"text": "film", "labels": labels}
    assert task.check(record) is None
    assert task.truth(record) == truth
    [example] = task.examples(record, tiny_tokenizer())
    assert [example[f"label {number}"] for number in range(3)] == [int(label in truth) for label in ("1", "good", "2")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None}, "labels is None, must be a list of labels, [] where the text has none"),
        ({"labels": "good"}, "labels is 'good', must be a list"),
        ({"labels": ["good", "film"]}, "label 'film' is not one of"),
        ({"labels": [["good"]]}, "label ['good'] is not one of"),
        ({"text": ""}, "text is empty"),
    ],
)
def test_a_record_of_another_shape_is_named(change: dict[str, Any], words: str) -> None:
    problem = TASK.check({**RECORDS[KIND][0], **change})
    assert problem is not None
    assert words in problem


def test_an_institution_s_own_codes_are_renamed_one_by_one() -> None:
    record = {"text": "film", "labels": np.array(["Q", "L", "other"], dtype=object)}
    assert TASK.translate(record, {"Q": "good", "L": "long"})["labels"] == ["good", "long", "other"]


def test_the_loss_is_the_mean_over_all_labels(make_run: Callable[..., RunConfig]) -> None:
    model = warm_model(of_kind(make_run(), KIND))
    stream = np.random.default_rng(1)
    set_state(model.module, {n: stream.normal(0, 1, v.shape).astype("f") for n, v in get_state(model.module).items()})
    examples = [TASK.examples(record, model.tokenizer)[0] for record in RECORDS[KIND]]
    batch = collate(examples, 16, model.pads, model.device)
    given = torch.tensor(
        [[int(label in record["labels"]) for label in TASK.labels] for record in RECORDS[KIND]]
    ).float()
    with torch.no_grad():
        logits = model.module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        expected = binary_cross_entropy_with_logits(logits, given, reduction="none").mean(dim=1)
        torch.testing.assert_close(TASK.losses(model.module, batch), expected)
        likely = [[label for label, x in zip(TASK.labels, row, strict=True) if x > 0.5] for row in logits.sigmoid()]
        assert TASK.predict(model.module, batch) == likely


def test_labels_are_counted_together_one_by_one_and_in_the_mean() -> None:
    truths = [["good", "long"], ["bad"], [], ["good"], ["bad"]]
    found = [["good"], ["good", "bad"], ["long"], [], ["bad"]]
    flags = [[[label in record for label in TASK.labels] for record in side] for side in (truths, found)]
    metrics = TASK.metrics(truths, found)
    assert metrics["f1"] == pytest.approx(f1_score(*flags, average="micro"))
    assert metrics["precision"] == pytest.approx(precision_score(*flags, average="micro"))
    for mean in ("macro", "weighted"):
        rates = precision_recall_fscore_support(*flags, average=mean, zero_division=0)[:3]
        assert [metrics[f"{part}/{mean} mean"] for part in ("precision", "recall", "f1")] == pytest.approx(rates)
    for label, rate in zip(TASK.labels, f1_score(*flags, average=None, zero_division=0), strict=True):
        assert metrics[f"f1/{label}"] == pytest.approx(rate)


def test_a_weighted_mean_over_no_label_is_0() -> None:
    assert TASK.metrics([[]], [["good"]])["precision/weighted mean"] == 0.0


def test_rightness_is_f1_of_the_labels_of_a_record() -> None:
    assert TASK.rightness(["good", "long"], ["good"]) == pytest.approx(2 / 3)
    assert TASK.rightness([], ["good"]) == TASK.rightness(["good"], []) == 0.0
    assert TASK.rightness([], []) == 1.0
    assert TASK.join({}, []) == []


def test_labels_are_distinct() -> None:
    with pytest.raises(ValueError, match="must be distinct"):
        task_of(KIND, labels=["a", "a"])
