"""The script that measures scenarios goes on where it stopped, and writes its table into a document."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sites import make_records

from confide.common.config.run import RunConfig
from confide.common.model.evaluation import evaluate
from confide.common.model.scores import Scores
from confide.common.model.warm_model import warm_model
from confide.simulations.benchmarks.rivals.central import train_centrally
from confide.simulations.benchmarks.scores import scenarios

MakeRun = Callable[..., RunConfig]
PLACE = "before\n<!-- scores -->\nold\n<!-- end of scores -->\nafter\n"


@pytest.fixture
def measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: MakeRun
) -> Callable[..., tuple[list[tuple[str, int, str]], str]]:
    """``measure([0.5, 0.6], "--seeds", "7")``: what was run in this call, and the document after it."""
    document = tmp_path / "tasks.md"
    document.write_text(PLACE, encoding="utf-8")
    monkeypatch.setattr(scenarios, "_DOCUMENT", document)
    monkeypatch.setattr(scenarios, "with_own_noise", lambda: ["names", "praise"])
    monkeypatch.setattr(
        scenarios, "named", lambda name, seed: make_run(study={"name": name.removesuffix(".toml"), "seed": seed})
    )

    def call(scores: list[float], *options: str) -> tuple[list[tuple[str, int, str]], str]:
        ran = []

        def way(name: str) -> Callable[[RunConfig], Scores]:
            def run_it(run: RunConfig) -> Scores:
                ran.append((run.study.name, run.study.seed, name))
                return Scores("f1", {"one": scores.pop(0)})

            return run_it

        monkeypatch.setattr(scenarios, "WAYS", {name: way(name) for name in ("federated", "start")})
        monkeypatch.setattr(sys, "argv", ["scenarios.py", "--out", str(tmp_path / "scores.jsonl"), *options])
        scenarios.main()
        return ran, document.read_text(encoding="utf-8")

    return call


def test_measuring_goes_on_where_it_stopped(measure: Callable[..., Any]) -> None:
    options = ("--seeds", "7,8")
    with pytest.raises(IndexError):  # cut off in the fourth of eight
        measure([0.5, 0.1, 0.8], *options)
    ran, document = measure([0.2, 0.6, 0.1, 0.9, 0.3], *options)
    assert ran == [
        ("praise", 7, "start"),
        *[("names", 8, way) for way in ("federated", "start")],
        *[("praise", 8, way) for way in ("federated", "start")],
    ]
    assert "| `names` | f1 | 0.100 ± 0.000 (2) |  | 0.550 ± 0.050 (2) * | 0.65 |  |  |\n" in document
    assert "| `praise` | f1 | 0.250 ± 0.050 (2) |  | 0.850 ± 0.050 (2) | 0.83 |  |  |\n" in document
    assert document.startswith("before\n<!-- scores -->\n| scenario |")
    assert document.endswith("|\n\nA star: the federated mean misses its bar.\n<!-- end of scores -->\nafter\n")


@pytest.mark.parametrize(
    ("scores", "missed"),
    [
        ({"federated": [0.61, 0.7]}, False),
        ({"federated": [0.6, 0.68]}, True),
        ({"start": [0.1]}, False),
        ({"federated": [90.0, 94.0], "start": [100.0, 100.0]}, False),
        ({"federated": [90.0, 96.0], "start": [95.0, 100.0]}, True),
        ({"federated": [90.0, 200.0], "start": [100.0]}, False),
    ],
    ids=["met", "missed", "not run", "met by perplexity", "missed by perplexity", "a start of one seed"],
)
def test_a_federated_mean_that_misses_its_bar_has_a_star(
    scores: dict[str, list[float]], missed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "BARS", {"dialogue": 0.95, "names": 0.65})
    scenario, metric = ("dialogue", "perplexity") if max(scores[next(iter(scores))]) > 1 else ("names", "f1")
    lines = [
        {"scenario": scenario, "metric": metric, "way": way, "seed": seed, "score": score}
        for way, own in scores.items()
        for seed, score in enumerate(own)
    ]
    [row] = [row for row in scenarios.table(lines).splitlines() if row.startswith(f"| `{scenario}`")]
    assert (" * | " in row) == missed
    assert f" | {scenarios.BARS[scenario]:g}" in row


def test_every_scenario_with_a_bar_is_measured() -> None:
    """Or a bar with a wrong name would be one that nothing can miss."""
    assert scenarios.BARS.keys() <= set(scenarios.with_own_noise())


@pytest.mark.parametrize("options", [("--only", "names"), ("--only", "own.toml"), ("--ways", "start")])
def test_a_part_of_the_table_is_printed_and_the_document_stays(
    measure: Callable[..., Any], capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    _, document = measure([0.5] * 4, *options, "--seeds", "7")
    assert document == PLACE
    assert "| f1 | 0.500 |  |" in capsys.readouterr().out


def test_a_table_leaves_out_scores_of_other_settings(
    measure: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measure([0.5, 0.1], "--only", "names", "--seeds", "7")
    path = tmp_path / "scores.jsonl"
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**first, "settings": "0" * 16, "score": 0.9}) + "\n")
        file.write(json.dumps({**first, "machine": {}, "score": 0.9}) + "\n")
    capsys.readouterr()
    assert measure([], "--only", "names", "--seeds", "7")[0] == []
    assert "| `names` | f1 | 0.100 |  | 0.500 * | 0.65 |  |  |\n" in capsys.readouterr().out


def test_a_document_without_a_place_for_the_table_is_refused_and_stays(tmp_path: Path) -> None:
    document = tmp_path / "tasks.md"
    document.write_text("<!-- scores -->\n", encoding="utf-8")
    with pytest.raises(ValueError, match="must hold the lines <!-- scores --> and <!-- end of scores -->"):
        scenarios.write_table(document, "table")
    assert document.read_text(encoding="utf-8") == "<!-- scores -->\n"


@pytest.mark.waits
def test_a_scenario_by_name_and_a_run_by_its_path_get_a_seed_and_one_evaluation(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, base_folder: Path
) -> None:
    monkeypatch.setattr(scenarios, "causal_model", lambda: base_folder)
    reviews, translation, own = (scenarios.named(name, 11) for name in ("reviews", "translation", str(run_file)))
    for run in (reviews, translation, own):
        assert (run.study.seed, run.evaluation.every) == (11, run.federation.num_rounds)
    assert reviews.privacy.target_epsilon == translation.privacy.target_epsilon == 8.0
    assert Path(translation.at(translation.model.base)) == Path(own.at(own.model.base)) == base_folder


@pytest.fixture
def pooled(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run with data in a file: three of four labels are positive."""
    records = [
        {**row, "label": ("negative", "positive")[number % 4 > 0]} for number, row in enumerate(make_records(80))
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return make_run(simulation={"data": str(path), "clients": 2})


def test_the_start_of_a_classification_is_its_commonest_label(pooled: RunConfig) -> None:
    scores = scenarios.at_start(pooled)
    public = scenarios.load_institutions(pooled).public
    share = {name: sum(row["label"] == "positive" for row in rows) / len(rows) for name, rows in public.items()}
    assert scores.per_institution == pytest.approx(share)


@pytest.mark.parametrize("layers", ["all", "top:1"])
def test_the_trainer_learns_with_our_module_and_loss(make_run: MakeRun, layers: str) -> None:
    """Above kept states of the lower layers too."""
    run = make_run(
        adapter={"layers": layers},
        federation={"num_rounds": 30, "learning_rate": 0.05},
        local={"sampling_probability": 0.5, "nominal_units": 64},
    )
    records = [{"text": text, "label": label} for text, label in (("loved", "positive"), ("hated", "negative"))] * 32
    state = train_centrally(run, records)
    model = warm_model(run, run.speed)
    assert (model.lower is None) == (layers == "all")
    assert abs(state["head.weight"]).max() > 2 * run.federation.learning_rate  # one step moves it by the rate at most
    assert evaluate(model, state, {"all": records}).mean == 1.0
