"""The last lines of a simulation: every number named, ways to train in order, many institutions in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from confide.common.config.run import RunConfig
from confide.simulations.commands.ending import closing
from confide.simulations.interface.result import Result

MakeRun = Callable[..., RunConfig]
SHARED = {"max_colluding": 3, "grid_bits": 10}


def _summary(count: int, **more: Any) -> dict[str, Any]:
    names = [f"hospital-{number}" for number in range(1, count + 1)]
    shares = {name: 0.7 + 0.01 * number for number, name in enumerate(names)}
    return {
        "run_dir": "runs/one",
        "seconds": 61.4,
        "score": {"mean": sum(shares.values()) / count, "per_institution": shares},
        "epsilon": {name: 2.011 + 0.01 * (number == 1) for number, name in enumerate(names)},
        "target_delta": 1e-5,
        "bytes_per_client_round": 34_200,
        **more,
    }


def test_each_of_a_few_institutions_has_a_line(make_run: MakeRun) -> None:
    assert closing(make_run(), _summary(2)).splitlines() == [
        "accuracy on the public test shares: 70.5%",
        "  hospital-1:  70.0%  epsilon 2.02 at delta 1e-05",
        "  hospital-2:  71.0%  epsilon 2.03 at delta 1e-05",
        "34,200 bytes from each institution in each round",
        "61 s; report: runs/one/report.html",
    ]


def test_each_line_of_shared_noise_has_both_epsilons_with_their_conditions(make_run: MakeRun) -> None:
    run = make_run()
    run = run.model_copy(update={"privacy": run.privacy.model_copy(update=SHARED)})
    summary = _summary(2, epsilon_if_broken={"hospital-1": 19.9, "hospital-2": 20.0})
    condition = "if at most 3 members of a sum collude"
    assert closing(run, summary).splitlines()[1:3] == [
        f"  hospital-1:  70.0%  epsilon 2.02 at delta 1e-05, {condition}, 19.90 if all others do",
        f"  hospital-2:  71.0%  epsilon 2.03 at delta 1e-05, {condition}, 20.00 if all others do",
    ]
    result = Result(run, Path("runs/one"), summary)
    assert (
        repr(result)
        == f"Result(test: accuracy 70.5%, epsilon 2.021 at delta 1e-05, {condition}, 20.00 if all others do; runs/one)"
    )


@pytest.mark.parametrize(
    ("more", "privacy"),
    [
        ({}, "epsilon 2.03 at most for each, at delta 1e-05"),
        (
            {"epsilon_if_broken": {"hospital-1": 19.9, "hospital-2": 20.0}},
            "epsilon 2.03 at most for each, at delta 1e-05, if at most 3 members of a sum collude, "
            "20.00 if all others do",
        ),
        ({"epsilon": {f"hospital-{number}": None for number in range(1, 21)}}, "no privacy"),
    ],
)
def test_many_institutions_have_one_line(make_run: MakeRun, more: dict[str, Any], privacy: str) -> None:
    run = make_run()
    run = run.model_copy(update={"privacy": run.privacy.model_copy(update=SHARED)})
    told = closing(run, _summary(20, **more))
    assert f"20 institutions from 70.0% (hospital-1) to 89.0% (hospital-20); {privacy}" in told.splitlines()
    assert "hospital-7" not in told


def test_ways_to_train_stand_side_by_side_from_the_least(make_run: MakeRun) -> None:
    found = {"no_privacy": 0.8, "local_only": 0.3147, "local_noise": 0.6}
    told = closing(make_run(), _summary(2, baselines={name: {"mean": mean} for name, mean in found.items()}))
    assert told.splitlines()[:5] == [
        "accuracy on the public test shares",
        "  each institution alone, with privacy                    31.5%",
        "  together, with all of the noise from each institution   60.0%",
        "  this run                                                70.5%",
        "  together, without privacy                               80.0%",
    ]


def test_a_run_without_test_data_says_so(make_run: MakeRun) -> None:
    told = closing(make_run(), _summary(2, score=None))
    assert told.startswith("accuracy on the public test shares: not measured: evaluation.data names no file\n")
    assert "  hospital-1:         epsilon 2.02 at delta 1e-05" in told
    many = closing(make_run(), _summary(9, score=None))
    assert "9 institutions; epsilon 2.03 at most for each, at delta 1e-05" in many
