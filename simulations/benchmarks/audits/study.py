"""Twenty audits of runs of several sorts, whose bounds hold together with a confidence of 95 %.

    python simulations/benchmarks/audits/study.py [--out audits.jsonl]

Each audit takes a twentieth of the risk. A line is added to the file after each, and the same command goes on there.
It ends with 1 if a bound passes what its run states.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from confide.simulations.audit.mechanism import audit_mechanism
from confide.simulations.audit.verdicts import Effort
from confide.simulations.benchmarks.scores.accuracy import kind_of_machine, read
from confide.simulations.studies.prepared import load, locked, simulated
from confide.simulations.studies.remembered import Checked

REPEATS = 5
CONFIDENCE = 0.95
RUNS: dict[str, tuple[str, list[str]]] = {
    "local noise": ("reviews", []),
    "five local steps": ("reviews", ["local.steps=5", "federation.num_rounds=8"]),
    "int8, plain clip": ("reviews", ["federation.transfer=int8", "privacy.clipping=abadi"]),
    "shared noise": ("default", []),
}


def add(path: Path, name: str, repeat: int) -> None:
    """Audit a run once, and add the line."""
    scenario, changes = RUNS[name]
    run = locked(simulated(load(Path(scenario), changes)), Checked())
    sure = 1 - (1 - CONFIDENCE) / (REPEATS * len(RUNS))
    found = audit_mechanism(run, Effort(confidence=sure)).as_json()
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"run": name, "repeat": repeat, "machine": kind_of_machine(), **found}) + "\n")


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Return a Markdown table: a row for each run and observer."""
    rows = ["| run | seen by | stated | proved: least | mean | most | held |", "|---|---|---|---|---|---|---|"]
    for name in RUNS:
        of_name = [line for line in lines if line["run"] == name]
        for place in range(len(of_name[0]["observers"]) if of_name else 0):
            seen = [line["observers"][place] for line in of_name]
            bounds = [one["epsilon_at_least"] for one in seen]
            rows.append(
                f"| {name} | {seen[0]['observer'].partition(',')[0]} | {seen[0]['stated_epsilon']:.2f} | "
                f"{min(bounds):.2f} | {statistics.mean(bounds):.2f} | {max(bounds):.2f} | "
                f"{sum(one['holds'] for one in seen)} of {len(seen)} |"
            )
    return rows


def main() -> int:
    """Carry out the audits that are left, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("audits.jsonl"), help="file of the audits (audits.jsonl)")
    out: Path = parser.parse_args().out
    for repeat in range(REPEATS):
        for name in RUNS:
            if (name, repeat) not in {(line["run"], line["repeat"]) for line in read(out)}:
                add(out, name, repeat)
                print(f"{name}, audit {repeat + 1} of {REPEATS}: done", flush=True)
    lines = read(out)
    print("\n".join(table(lines)))
    return 0 if all(line["holds"] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
