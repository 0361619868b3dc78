"""The attacks on membership where there is something to find: one run without privacy, and the same at epsilon 3.

    python simulations/benchmarks/audits/members.py [--runs 12] [--folder members]

Each run is carried out so often on random halves of its units. Then each of these is attacked with the others as
shadow runs, and the guesses of all are counted together. What is done stays in the folder.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from confide.common.config.run import RunConfig, make_plan
from confide.common.export.start import initial_state
from confide.common.model.warm_model import warm_model
from confide.common.privacy.accounting import attack_true_positive_rate
from confide.common.privacy.plan import PrivacyPlan
from confide.simulations.audit.membership import FALSE_ALARMS, hits_at, shadow_scores
from confide.simulations.audit.shadows import Shadows, pool_of, shadow_runs
from confide.simulations.studies.baselines import without_privacy
from confide.simulations.studies.prepared import load, locked
from confide.simulations.studies.remembered import Checked

# So few units, drawn so often, that a model learns them by heart where nothing keeps it from that.
SMALL = [
    "simulation.clients=3",
    "simulation.max_records=100",
    "local.sampling_probability=0.5",
    "local.nominal_units=40",
    "federation.num_rounds=30",
    "privacy.target_epsilon=3",
]


def hits(run: RunConfig, runs: int, folder: Path) -> dict[str, float]:
    """Return the share of members that each attack finds at 1 % of false alarms, over all runs together."""
    model = warm_model(run, run.speed)
    pool = pool_of(run, model)
    found = shadow_runs(pool, runs, folder, lambda line: print(f"{folder.name}: {line}", flush=True))
    start_U = pool.losses(initial_state(run, model))
    scores: dict[str, list[NDArray[np.float64]]] = {}
    for target in range(runs):
        others = np.arange(runs) != target
        own = found.losses[target]
        each = {"low loss": -own, "loss against the start": start_U - own}
        each |= shadow_scores(run, own, Shadows(found.losses[others], found.inside[others]))
        for name, score in each.items():
            scores.setdefault(name, []).append(score)
    inside, rate = found.inside.ravel(), np.array([FALSE_ALARMS])
    joined = {name: np.concatenate(parts) for name, parts in scores.items()}
    return {name: float(hits_at(each[inside], each[~inside], rate)[0]) for name, each in joined.items()}


def most(run: RunConfig) -> str:
    """Return the accountant's bound on the share of members that any attack finds."""
    plan = make_plan(run, run.local.nominal_units)
    return (
        f"{attack_true_positive_rate(plan, FALSE_ALARMS):.1%}" if isinstance(plan, PrivacyPlan) else "nothing bounds it"
    )


def main() -> None:
    """Carry out the runs that are left, attack each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12, help="of each sort, an even number (12)")
    parser.add_argument("--folder", type=Path, default=Path("members"), help="for what is done (members)")
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    private = locked(load(Path("questions"), SMALL), Checked())
    print(f"| at {FALSE_ALARMS:.0%} false alarms | without privacy | epsilon {private.privacy.target_epsilon:g} |")
    print("|---|---|---|")
    sorts = {"open": without_privacy(private), "private": private}
    found = {name: hits(run, given.runs, given.folder / name) for name, run in sorts.items()}
    for attack in found["open"]:
        print(f"| {attack} | {found['open'][attack]:.1%} | {found['private'][attack]:.1%} |")
    print(f"| at most, by the accountant | {most(sorts['open'])} | {most(sorts['private'])} |")


if __name__ == "__main__":
    main()
