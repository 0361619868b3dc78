"""What a report says of an adapter on test records: true sums, an interval where one holds, and no long wait."""

from collections.abc import Callable

import pytest
from support.sites import make_records, random_state

from confide.common.config.run import RunConfig
from confide.common.model.evaluation import predict
from confide.common.model.warm_model import WarmModel
from confide.common.scoring.closer_look import closer_look
from confide.common.tasks.text_classification import TextClassification

MakeRun = Callable[..., RunConfig]
SHARES = {"anne": make_records(20), "mary": make_records(12)}


def test_confusions_and_the_commonest_label_are_counted_over_all_records(make_run: MakeRun, model: WarmModel) -> None:
    look = closer_look(model, make_run(), random_state(model), SHARES)
    assert look
    records = [*SHARES["anne"], *SHARES["mary"]]
    answers = predict(model, records)
    right = sum(record["label"] == answer for record, answer in zip(records, answers, strict=True))
    assert look["sizes"] == {"anne": 20, "mary": 12}
    assert look["score"] == pytest.approx(right / 32)
    assert look["low"] <= look["score"] <= look["high"]
    rows = look["confusion"]["rows"]
    assert sum(map(sum, rows)) == 32
    assert sum(rows[place][place] for place in range(len(rows))) == right
    labels = [record["label"] for record in records]
    assert look["commonest"] == max(map(labels.count, labels)) / 32


def test_without_records_there_is_nothing_to_look_at(make_run: MakeRun, model: WarmModel) -> None:
    assert closer_look(model, make_run(), random_state(model), {"anne": []}) is None


def test_records_of_one_person_get_no_interval_that_counts_them_as_several(make_run: MakeRun, model: WarmModel) -> None:
    run = make_run(privacy={"unit": "group"})
    look = closer_look(model, run, random_state(model), SHARES)
    assert look
    assert (look["low"], look["high"]) == (None, None)


def test_a_headline_that_is_no_share_of_right_answers_is_computed_once(
    make_run: MakeRun, model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, metrics = list[int](), TextClassification.metrics

    def counted(self: TextClassification, *arguments: list[str]) -> dict[str, float]:
        calls.append(1)
        return metrics(self, *arguments)

    monkeypatch.setattr(TextClassification, "metrics", counted)
    monkeypatch.setattr(TextClassification, "rightness", lambda *_: 0.5)
    look = closer_look(model, make_run(), random_state(model), SHARES)
    assert look
    assert (look["low"], look["high"], len(calls)) == (None, None, 1)
