"""Federations from Python: what goes in, what comes out, and faults as one line."""

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
from conftest import MakeRun
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from matplotlib.figure import Figure
from support.sites import make_records

import confide.simulations
from confide.common.config.run import RunConfig
from confide.common.data.records import read_public
from confide.common.errors import InputError
from confide.common.model.warm_model import WarmModel
from confide.simulations.interface.calls import evaluate, plan, predict, simulate
from confide.simulations.interface.given import rows_of, with_data
from confide.simulations.interface.result import Result, predicted

ROWS = [{key: row[key] for key in ("text", "label")} for row in make_records(60)]
SHARES = {"north": ROWS[:30], "south": ROWS[30:]}


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    return make_run(
        federation={"num_rounds": 2, "min_clients": 2},
        local={"nominal_units": 20, "sampling_probability": 0.5},
        evaluation={"every": 1},
    )


@pytest.fixture
def result(run: RunConfig, tmp_path: Path) -> Result:
    return simulate(run, SHARES, out=tmp_path / "out", quiet=True)


def test_a_federation_of_given_institutions(result: Result, tmp_path: Path) -> None:
    assert result.folder == tmp_path / "out"
    assert result.metrics["metric"] == "accuracy"
    assert list(result.metrics["per_institution"]) == list(result.epsilon) == ["north", "south"]
    told = json.loads((result.folder / "privacy.json").read_text(encoding="utf-8"))["institutions"]
    assert result.epsilon == {facts["institution"]: facts["epsilon"] for facts in told}
    assert result.epsilon_if_broken is None
    assert list(result.history.index) == [1, 2]
    assert list(result.history["institutions"]) == [2, 2]
    assert result.history["score"][2] == pytest.approx(result.metrics["mean"])
    assert result.report.is_file()
    assert isinstance(result.plot(), Figure)
    assert repr(result).startswith("Result(test: accuracy ")


def test_a_run_that_goes_on_from_an_adapter_tells_what_it_forgot(
    result: Result, run: RunConfig, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier.jsonl"
    earlier.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    adapter = run.adapter.model_copy(update={"start_from": str(result.folder / "adapter")})
    evaluation = run.evaluation.model_copy(update={"earlier": str(earlier)})
    onward = run.model_copy(update={"adapter": adapter, "evaluation": evaluation})
    found = simulate(onward, SHARES, out=tmp_path / "onward", quiet=True)
    assert "On 60 records of the earlier task the start reached" in found.report.read_text(encoding="utf-8")


def test_predictions_and_metrics_are_those_of_the_commands(result: Result) -> None:
    texts = [row["text"] for row in ROWS[:5]]
    found = result.predict(iter(texts))
    assert found == predict(result.folder, texts) == predict(result.folder, [{"text": text} for text in texts])
    assert set(found) <= {"negative", "positive"}
    metrics = evaluate(result.folder, Dataset.from_list(ROWS))
    right = sum(one == row["label"] for one, row in zip(result.predict([r["text"] for r in ROWS]), ROWS, strict=True))
    assert metrics["accuracy"] == pytest.approx(right / len(ROWS))
    assert type(result.adapter).__name__.startswith("PeftModel")


@pytest.mark.parametrize(
    "one", ["bad film", b"bad film", {"text": "bad film"}, pandas.DataFrame([{"text": "bad film"}]), [3], [b"bad"]]
)
def test_one_text_is_no_list_of_its_letters(one: Any, model: WarmModel) -> None:
    with pytest.raises(InputError, match="give a list of texts or of records"):
        predicted(model, one)


def test_events_reach_the_callers_function(run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[dict[str, Any]] = []
    simulate(run, SHARES, out=tmp_path / "out", quiet=True, on_event=events.append)
    assert [event["round"] for event in events if event["event"] == "round"] == [1, 2]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("form", ["list", "dataset", "table"])
def test_records_in_one_piece_are_divided(form: str, run: RunConfig, tmp_path: Path) -> None:
    dataset = Dataset.from_list(ROWS)
    data = {"list": ROWS, "dataset": dataset, "table": dataset.to_pandas()}[form]
    given = with_data(run, data, tmp_path)
    assert given.simulation is not None
    assert [len(given.simulation.data), given.simulation.partition] == [len(str(tmp_path)) + 23, "iid"]
    lines = Path(given.simulation.data).read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(ROWS)
    assert with_data(run, data, tmp_path) == given  # written once


def test_splits_give_public_test_data(run: RunConfig, tmp_path: Path) -> None:
    splits = DatasetDict({"train": Dataset.from_list(ROWS[:40]), "test": Dataset.from_list(ROWS[40:])})
    given = with_data(run, splits, tmp_path)
    assert given.evaluation.data is not None
    assert len(Path(given.evaluation.data).read_text(encoding="utf-8").splitlines()) == 20


def test_an_unknown_split_is_no_institution(run: RunConfig, tmp_path: Path) -> None:
    splits = DatasetDict({name: Dataset.from_list(ROWS[:20]) for name in ("train", "test", "unsupervised")})
    with pytest.raises(InputError, match=r"data has splits \['unsupervised'\], must have train and test alone"):
        with_data(run, splits, tmp_path)


def test_class_labels_become_their_names() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
    data = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    assert [row["label"] for row in rows_of(data)] == ["positive", "negative", None]  # -1: no label


def test_a_plan_is_that_of_the_command(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    facts = plan(run, SHARES)
    assert facts["num_steps"] == 2
    assert facts["noise_multiplier"] == 1.0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (3, "data is a int, must be a Dataset"),
        ({"north": []}, "data hold no record"),
        ([], "data hold no record"),
        ([{"text": object(), "label": "negative"}], "data hold a value without a form in JSON"),
    ],
)
def test_bad_data_are_named(data: Any, words: str, run: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        with_data(run, data, tmp_path)


def test_half_a_character_is_the_fault_of_its_record(run: RunConfig, tmp_path: Path) -> None:
    section = with_data(run, [*ROWS, {"text": "a \ud83d", "label": "negative"}], tmp_path).simulation
    assert section is not None
    with pytest.raises(InputError, match=":61: text holds half a surrogate pair"):
        read_public(Path(section.data), run.task)


def test_bad_runs_are_named(run: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="study"):
        simulate({"task": {}}, SHARES, out=tmp_path / "a", quiet=True)
    with pytest.raises(InputError, match=r"changes are for a run.toml"):
        simulate(run, SHARES, changes=["federation.num_rounds=3"], out=tmp_path / "a", quiet=True)
    with pytest.raises(InputError, match=r"nothing\.toml: there is no such file"):
        simulate("nothing.toml", quiet=True)
    assert not (tmp_path / "a").exists()


def test_the_package_has_the_functions() -> None:
    assert confide.simulations.simulate is simulate
    assert confide.simulations.predict is predict
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = confide.simulations.nothing
