"""The pages with much to show: their time to load, and the cost of one that is open while nothing happens.

    python -m tests.pages.load [--institutions 50] [--rounds 1000] [--idle-seconds 60]

It starts a real server whose last run has so many rounds of so many institutions, and the page of an institution whose
ledger has a charge for each of these rounds. It prints the time of the first load (the files are read), the median of
ten more, and the share of a core while a page is open. It fails if a load takes a second, or idling 1 % of a core.
"""

import argparse
import json
import re
import statistics
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from confide.client.privacy.account import AnswerKey
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import open_site
from confide.common.config.run import RunConfig, lock, make_plan
from confide.common.config.toml import check
from confide.common.protocol.enrolment import JoinRequest
from confide.server.home.home import open_home
from confide.server.home.queue import Queue, QueuedRun
from confide.simulations.benchmarks.inputs.processes import Processes, cpu_seconds, machine

_MOST_SECONDS, _MOST_SHARE = 1.0, 0.01


def make_run(rounds: int) -> RunConfig:
    """Return a locked run of so many rounds, whose base model is not needed."""
    content = {
        "study": {"name": "long"},
        "task": {"kind": "text-classification", "labels": ["negative", "positive"]},
        "federation": {"num_rounds": rounds},
        "privacy": {"noise_multiplier": 4.0},
        "adapter": {"targets": ["query"]},
    }
    return lock(check(RunConfig, content, "bench"), "ab" * 32)


def fill_server(folder: Path, run: RunConfig, institutions: int) -> None:
    """Write a registry, a queue and the events of a run into a server's folder, as the server would."""
    home = open_home(folder)
    names = [f"institution-{number:03}" for number in range(institutions)]
    for number, name in enumerate(names):
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
        home.registry.approve(JoinRequest(name, pem, f"{number:064x}"))
    queue = Queue(folder / "queue")
    queued = queue.add(run)
    queue.write(QueuedRun(queued.name, queued.lineage, "stopped", "after the last round"))
    (home.runs / queued.name).mkdir()
    offered = {"declared_units": dict.fromkeys(names, 2000), "others": {}, "asked": len(names), "accepted": len(names)}
    lines = [{"event": "offered", **offered, "versions": {"confide": "0.1.0", "flwr": "1.41.0"}}]
    for number in range(1, run.federation.num_rounds + 1):
        lines.append({"event": "round_started", "what": "update", "round": number, "institutions": names})
        lines += [{"event": "accepted", "round": number, "institution": name} for name in names]
        counts = {"num_steps": dict.fromkeys(names, number), "num_releases": dict.fromkeys(names, 0)}
        score = {"metric": "accuracy", "mean": 0.9 - 0.5 / number, "per_institution": dict.fromkeys(names, 0.5)}
        ended = {"round": number, "accepted": len(names), "dropped": [], "expected_units": 1.0, "seconds": 1.0}
        lines.append({"event": "round", **ended, **counts, "score": score})
    text = "".join(json.dumps({"time": 1.0, **line}) + "\n" for line in lines)
    (home.runs / queued.name / "events.jsonl").write_text(text, encoding="utf-8")


def fill_site(folder: Path, run: RunConfig) -> Path:
    """Write a site.toml, and a ledger with a charge for each round of a run."""
    bounds = {"max_epsilon": 100.0, "max_delta": 1e-5, "min_noise_multiplier": 0.1, "max_steps": 100_000}
    bounds |= {"max_rounds": 100_000, "max_sampling_probability": 1.0, "min_clip_norm": 0.01, "max_head_weight": 10.0}
    policy = {**bounds, "min_release_seconds": 1.0, "studies": ["long"], "base_models": ["any"]}
    dataset = {"id": "people", "path": "notes.jsonl", "declared_units": 2000}
    folder.mkdir()
    content = {"institution": {"name": "st-mary"}, "dataset": dataset, "policy": policy}
    (folder / "site.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
    (folder / "notes.jsonl").write_text('{"text": "a", "label": "negative"}\n', encoding="utf-8")
    site = open_site(folder / "site.toml")
    cap, facts = cap_of(site.config.policy), {"input_sha256": "i", "run_sha256": run.sha256(), "coins": "none"}
    site.ledger.open_study("long", make_plan(run, 2000), cap)
    for number in range(1, run.federation.num_rounds + 1):
        reserved = site.ledger.reserve(AnswerKey("long", "ab" * 16, "update", number), (1, 0), cap, facts)
        site.ledger.seal(reserved, f"{number:064x}", 82_968)
    return folder / "site.toml"


def measure(name: str, link: str, pid: int, idle_seconds: float) -> bool:
    """Print the times to load a page and the cost of one that is open; return whether both are within the bars."""
    host = link.split("/open/", maxsplit=1)[0].removesuffix("/page")
    with httpx.Client(base_url=host, trust_env=False, timeout=120) as web:
        place = re.findall(r'url=(/[^"]+)"', web.get(link).text)[0]
        times = []
        for _ in range(11):
            began = time.monotonic()
            size = len(web.get(place).raise_for_status().content)
            times.append(time.monotonic() - began)
        open_page = threading.Thread(target=_stay, args=(web, f"{place}events"), daemon=True)
        open_page.start()
        time.sleep(10.0)  # what the loads have set off is over
        before = cpu_seconds(pid)
        time.sleep(idle_seconds)
        share = (cpu_seconds(pid) - before) / idle_seconds
    first, others = times[0], statistics.median(times[1:])
    print(f"{name}: first load {first:.2f} s, then {others:.2f} s, {size:,} bytes; open and idle {share:.2%} of a core")
    return max(first, others) < _MOST_SECONDS and share < _MOST_SHARE


def _stay(web: httpx.Client, path: str) -> None:
    """Hold the stream of news, as an open page does."""
    try:
        with web.stream("GET", path) as news:
            for _ in news.iter_bytes():
                pass
    except httpx.HTTPError:
        return


def main() -> int:
    """Measure both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--institutions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    print(machine())
    run, good = make_run(arguments.rounds), []
    with TemporaryDirectory(prefix="confide-pages-") as folder, Processes(Path(folder)) as processes:
        processes.serve()
        fill_server(Path(folder) / "srv", run, arguments.institutions)
        link = processes.confide("server", "page", "--home", "srv").strip()
        what = f"server with {arguments.institutions} institutions and {arguments.rounds} rounds"
        good.append(measure(what, link, processes.started["server"].pid, arguments.idle_seconds))
        site = fill_site(Path(folder) / "site", run)
        processes.start("page", "client", "page", "--site", site)
        processes.wait(lambda: "works once" in processes.log("page"), "the page does not listen")
        link = next(line for line in processes.log("page").splitlines() if "/open/" in line)
        what = f"institution with {arguments.rounds} charges"
        good.append(measure(what, link, processes.started["page"].pid, arguments.idle_seconds))
    return 0 if all(good) else 1


if __name__ == "__main__":
    with closing(sys.stdout):
        sys.exit(main())
