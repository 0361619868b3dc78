"""Kill clients at random places of the release protocol, and check after each kill that nothing was lost or given back.

    python -m tests.crash [--kills 1000] [--real 50] [--seed 0] [--plant BUG]

Most of the clients have a fake trainer: half of these kills are of clients of secure sums. ``--real`` of the kills are
of clients that train a tiny BERT on records of a site.toml. Prints what was counted; ends with 1 at any violation.
"""

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash.laws import Violation
from crash.planted import NAMES
from crash.planted_sums import CHANGES
from crash.world import kill_clients


def run(name: str, kills: int, seed: int, bug: str | None) -> bool:
    """One kind of clients; whether nothing was violated."""
    if not kills:
        return True
    kind = import_module(f"crash.{name}").KIND
    started = time.monotonic()
    try:
        counts = kill_clients(kind, kills, seed, bug)
    except Violation as violation:
        print(f"VIOLATION ({name} clients, seed {seed}): {violation}")
        return False
    print(f"{name} clients, seed {seed}, {time.monotonic() - started:.0f} s")
    for key in sorted(counts):
        print(f"  {key:30}{counts[key]:8}")
    return True


def main() -> None:
    """All kinds."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="kills of clients with a fake trainer (1000)")
    parser.add_argument("--real", type=int, default=50, help="kills of clients that train (50)")
    parser.add_argument("--seed", type=int, default=0, help="chooses asks, places and policies (0)")
    parser.add_argument("--plant", choices=(*NAMES, *CHANGES), help="a bug, to see it found")
    options = parser.parse_args()
    half = options.kills // 2
    done = [
        run(name, kills, options.seed, options.plant)
        for name, kills in (("fake", half), ("summing", options.kills - half), ("real", options.real))
    ]
    print("no violation" if all(done) else "VIOLATED")
    sys.exit(not all(done))


if __name__ == "__main__":
    main()
