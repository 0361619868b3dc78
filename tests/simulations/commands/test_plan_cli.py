"""`confide plan`: the figures that it prints, and that it touches no data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.coins import TestCoins
from support.sites import DrawsOnly

from confide.common.config.run import RunConfig, make_plan
from confide.common.model import devices
from confide.common.model.adapter import coordinate_weights, schema
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.sharing import Sharing
from confide.common.privacy.step import Worker, private_step
from confide.simulations.studies import plan

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]
PLAN = {
    "noise_multiplier",
    "num_steps",
    "sampling_probability",
    "epsilon",
    "epsilon_rdp",
    "target_delta",
    "signal_to_noise_share",
    "bytes_per_client_round",
    "head_noise",
}


@pytest.fixture
def _no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its three calibrations take seconds."""
    monkeypatch.setattr(plan, "TABLE", ())


@pytest.mark.usefixtures("_no_table")
def test_plan_json_and_the_bytes_that_a_run_reports(confide: Confide, settings: Settings, run_file: Path) -> None:
    for train in ("B", "AB"):
        sets = settings(f"adapter.train={train}")
        code, output, _ = confide("plan", run_file, "--json", *sets)
        assert code == 0
        facts = json.loads(output)
        assert facts.keys() >= PLAN
        assert (facts["num_steps"], facts["sampling_probability"], facts["noise_multiplier"]) == (2, 0.1, 4.0)
        code, output, errors = confide("simulate", run_file, "--json", *sets)
        assert code == 0, errors
        summary = json.loads(output)
        assert facts["bytes_per_client_round"] == summary["bytes_per_client_round"]
        assert set(summary["epsilon"].values()) == {facts["epsilon"]}


@pytest.mark.usefixtures("_no_table")
def test_plan_meets_the_target_and_answers_the_reverse_question(
    confide: Confide, settings: Settings, run_file: Path
) -> None:
    run_file.write_text(
        run_file.read_text(encoding="utf-8").replace("noise_multiplier = 4.0", "target_epsilon = 2.0"), encoding="utf-8"
    )
    facts = json.loads(confide("plan", run_file, "--json")[1])
    assert 1.99 < facts["epsilon"] <= 2.0 < facts["epsilon_rdp"]
    assert 0 < facts["signal_to_noise_share"] <= 1
    noise = facts["noise_multiplier"]
    reverse = json.loads(confide("plan", run_file, "--json", "--noise-multiplier", noise)[1])
    assert reverse["epsilon"] == facts["epsilon"]
    louder = json.loads(confide("plan", run_file, "--json", "--noise-multiplier", 2 * noise)[1])
    assert louder["epsilon"] < facts["epsilon"]


def test_plan_touches_no_data(confide: Confide, settings: Settings, run_file: Path, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").unlink()
    code, output, _ = confide("plan", run_file)
    assert code == 0
    rows = [line.split()[0] for line in output.partition("epsilon   noise")[2].splitlines()[1:]]
    assert rows == ["1", "3", "8"]
    assert {path.name for path in tmp_path.iterdir()} == {"run.toml"}


@pytest.mark.usefixtures("_no_table")
def test_noise_that_drowns_the_head_is_told_with_rule_and_remedy(confide: Confide, run_file: Path) -> None:
    _, output, _ = confide("plan", run_file)
    [line] = [line for line in output.splitlines() if "noise on the head" in line]
    figure = json.loads(confide("plan", run_file, "--json")[1])["head_noise"]
    assert f"is {figure:g}, should be at most {plan.MOST_HEAD_NOISE:g}" in line
    assert "take more units, institutions or rounds, or a larger epsilon" in line
    larger = 10 * figure / plan.MOST_HEAD_NOISE
    _, output, _ = confide("plan", run_file, "--set", f"local.nominal_units={int(20 * larger)}")
    assert "noise on the head" not in output


@pytest.mark.parametrize(
    "changes", [{}, {"num_rounds": 8}, {"min_clients": 6}, {"participation": 0.5, "min_clients": 8}]
)
def test_the_noise_on_a_head_is_that_of_the_mean_of_all_steps(
    make_run: Callable[..., RunConfig], model: WarmModel, changes: dict[str, float]
) -> None:
    run = make_run(federation={"num_rounds": 3, "min_clients": 2, **changes}, local={"nominal_units": 50})
    private = make_plan(run, 50)
    assert isinstance(private, PrivacyPlan)
    shapes = schema(model.module)
    weights = coordinate_weights(shapes, private.head_weight)
    on_head = weights.numpy() == private.head_weight
    updates = int(run.num_steps * run.federation.participation * run.federation.min_clients)
    coins, lengths = TestCoins(3), []
    workers = [Worker(DrawsOnly(0), model.wrapped, model.losses)]
    for _ in range(20):
        steps = [private_step(private, coins, workers, weights) for _ in range(updates)]
        lengths.append(private.head_weight * np.linalg.norm(np.mean(steps, axis=0)[on_head]))
    assert plan.head_noise(run, private, int(on_head.sum())) == pytest.approx(np.mean(lengths), rel=0.1)


# A run whose institutions share the noise

SHARED = (
    *("federation.aggregation=secure-sum", "federation.weights=declared", "privacy.max_colluding=2"),
    *("federation.min_clients=6", "local.steps=1", "local.sampling_probability=0.2", "federation.num_rounds=20"),
    *("privacy.target_epsilon_if_broken=20", "simulation.clients=8"),
)


def _shared(confide: Confide, settings: Settings, run_file: Path) -> tuple[dict[str, Any], list[str]]:
    """What `plan` tells of it, as JSON and as lines."""
    sets = settings(*SHARED)
    code, output, errors = confide("plan", run_file, "--json", *sets)
    assert code == 0, errors
    return json.loads(output), confide("plan", run_file, *sets)[1].splitlines()


@pytest.mark.usefixtures("_no_table")
def test_each_number_of_shared_noise_stands_with_its_condition(
    confide: Confide, settings: Settings, run_file: Path
) -> None:
    facts, lines = _shared(confide, settings, run_file)
    shared = facts["secure_sum"]
    assert f"  epsilon {facts['epsilon']} at delta" in lines[1]
    assert lines[1].endswith("if at most 2 members of each sum collude")
    assert list(shared["colluding"]) == ["3", "4"]
    more = [f"    epsilon {shared['colluding'][number]:.7g} if {number} do" for number in ("3", "4")]
    assert [line for line in lines if line in more] == more
    [broken] = [line for line in lines if "if all others do, or if the secure sum is broken" in line]
    assert f"epsilon {shared['epsilon_if_broken']:.7g} if" in broken
    rates = [shared[f"attack_true_positive_rate{which}"] for which in ("", "_if_broken")]
    [attack] = [line for line in lines if line.startswith("    an attacker finds at most")]
    assert f"{rates[0]:.2%} by epsilon {shared['epsilon']:.7g}, {rates[1]:.2%} by the last (at 1 % false" in attack
    assert rates[0] < rates[1]
    assert "    a round needs 6 of them (min_clients), so it goes on while 2 are away" in lines
    assert facts["epsilon"] < shared["colluding"]["3"] < shared["colluding"]["4"] < shared["epsilon_if_broken"]


@pytest.mark.usefixtures("_no_table")
def test_what_other_choices_of_both_numbers_would_cost_is_told(
    confide: Confide, settings: Settings, run_file: Path
) -> None:
    """Each row is what a run with these numbers says of itself."""
    facts, lines = _shared(confide, settings, run_file)
    choices = facts["secure_sum"]["choices"]
    assert [(one["min_clients"], one["max_colluding"]) for one in choices] == [(8, 2), (6, 1), (6, 3)]
    for choice in choices:
        numbers = (f"{name}={choice[name.partition('.')[2]]}" for name in _NUMBERS)
        told = json.loads(confide("plan", run_file, "--json", *settings(*SHARED, *numbers))[1])
        assert told["epsilon"] == pytest.approx(choice["epsilon"], abs=2e-3)
        assert told["secure_sum"]["epsilon_if_broken"] == pytest.approx(choice["epsilon_if_broken"], abs=2e-3)
    table = lines[lines.index("    min_clients  max_colluding  noise (this run: 100 %)  epsilon  if broken") + 1 :]
    assert [line.split()[:2] for line in table[: len(choices)]] == [["8", "2"], ["6", "1"], ["6", "3"]]


_NUMBERS = ("federation.min_clients", "privacy.max_colluding")


@pytest.mark.parametrize(
    ("num", "numbers"),
    [(2, (2, 0)), (3, (3, 1)), (4, (3, 1)), (4, (4, 2)), (20, (18, 3)), (20, (12, 3)), (200, (200, 198))],
)
def test_a_run_may_have_every_choice_that_is_told(num: int, numbers: tuple[int, int]) -> None:
    others = plan._other_choices(num, Sharing(*numbers, 19, 2**36))
    assert numbers not in others
    assert len(set(others)) == len(others)
    for least, allowed in others:
        assert least <= num
        assert 2 * least > num + allowed
        assert least - allowed >= 2


@pytest.mark.usefixtures("_no_table")
def test_a_plan_of_shared_noise_reads_no_data_and_counts_clients(
    confide: Confide, settings: Settings, run_file: Path
) -> None:
    """Whoever designs a study, and the server's operator, have no records."""
    (run_file.parent / "data.jsonl").unlink()
    facts, _ = _shared(confide, settings, run_file)
    assert facts["secure_sum"]["institutions"] == 8
    code, _, errors = confide(
        "plan", run_file, *settings(*SHARED, "simulation.partition=natural", "simulation.by=site")
    )
    assert (code, "data.jsonl" in errors) == (2, True), f"{errors}: there the data alone tell how many there are"


@pytest.mark.usefixtures("_no_table")
def test_a_run_without_shared_noise_tells_nothing_of_it(confide: Confide, settings: Settings, run_file: Path) -> None:
    _, output, _ = confide("plan", run_file, *settings())
    assert not [word for word in ("league", "broken", "max_colluding") if word in output]


@pytest.mark.usefixtures("_no_table")
def test_the_time_and_the_memory_of_a_round_of_shared_noise_are_measured(
    confide: Confide, settings: Settings, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default scenario is such a run."""
    monkeypatch.setattr(plan, "_other_choices", lambda *of: [])  # they take seconds
    begun = list[float]()
    monkeypatch.setattr(devices, "forget_gpu_peak", lambda: begun.append(700))
    monkeypatch.setattr(devices, "gpu_peak_mb", lambda: sum(begun))
    sets = settings(*SHARED, "speed.tokens_per_micro_batch=64")
    code, output, errors = confide("plan", run_file, "--measure", *sets)
    assert code == 0, errors
    [line] = [line for line in output.splitlines() if " s for a round of one institution, peak memory " in line]
    assert line.endswith(" MB and 700 MB on a GPU, on this machine, for texts of all lengths up to max_length = 64")
