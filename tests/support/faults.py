"""Runs, records and checks of the fault tests: what must hold at the end, whatever went wrong before."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from support.accounts import Replay, replay
from support.deployment import Deployment
from support.leaving import CANARY, disguises, search
from support.sites import make_records
from support.tiny_bert import tiny_tokenizer

NEEDLES = disguises(CANARY, tiny_tokenizer())
_UNPACKED = 2**21  # bytes of a file up to which packed streams are looked for in it, too

_RUN = """
[study]
name = "{study}"
[model]
base = {base}
[adapter]
rank = {rank}
[task]
labels = ["negative", "positive"]
max_length = 64
[federation]
num_rounds = {rounds}
min_clients = {min_clients}
deadline_seconds = {deadline}
[local]
nominal_units = 20
sampling_probability = 0.5
[privacy]
noise_multiplier = {noise}
target_delta = 1e-3
"""


def run_file(folder: Path, base: Path, **changes: Any) -> Path:
    """A run.toml of a few rounds of some tenths of a second."""
    values = {"study": "small", "rounds": 3, "min_clients": 2, "deadline": 100.0, "noise": 4.0, "rank": 4, **changes}
    path = folder / "run.toml"
    path.write_text(_RUN.format(base=json.dumps(str(base)), **values), encoding="utf-8")
    return path


def private_records(count: int = 20) -> list[dict[str, Any]]:
    """Records that hold the canary; `require_nothing_private` looks for it."""
    return [{**record, "text": f"{CANARY} {record['text']}", "patient": CANARY} for record in make_records(count)]


def begin(deployment: Deployment, names: tuple[str, ...] = ("mary", "jude"), **sabotage: dict[str, Any]) -> None:
    """A server and these institutions, started; ``sabotage`` by the name of the process."""
    for name in names:
        deployment.add(name, private_records())
    deployment.start_server(sabotage.get("server"))
    for name in names:
        deployment.start_client(name, sabotage.get(name))


def rounds_charged(deployment: Deployment, name: str) -> list[int]:
    """The rounds that an institution reserved, in order."""
    return [row["round"] for row in deployment.rows(name) if row["kind"] == "reserve"]


# What must hold at the end


def judge(deployment: Deployment) -> None:
    """After every fault: the ledgers are right, nothing private was printed, nobody was shown a traceback."""
    require_laws(deployment)
    require_nothing_private(deployment)
    require_no_traceback(deployment)


def require_laws(deployment: Deployment) -> None:
    """Of every institution: released <= reserved <= cap, by two computations that share nothing with the product."""
    accepted = Counter[str]()
    for folder in (deployment.folder / "srv" / "runs").glob("*/events.jsonl"):
        events = deployment.events(folder.parent.name)
        taken = {(event["institution"], event["round"]) for event in events if event["event"] == "accepted"}
        accepted.update(name for name, _ in taken)
    for home in deployment.folder.glob("*/site.toml"):
        name = home.parent.name
        if name in deployment.scripted:
            continue
        if not deployment.rows(name):
            assert accepted[name] == 0
            continue
        ledger = deployment.folder / f"{name}.ledger.jsonl"
        deployment.confide("client", "ledger", "export", "--site", home, "--out", ledger)
        deployment.confide("verify", ledger)
        account = replayed(ledger)
        assert account.problems == [], name
        assert accepted[name] <= len(account.sealed) <= len(account.asked), name


def replayed(export: Path) -> Replay:
    """The rows of an export, added up by the tests' own code."""
    lines = [json.loads(line) for line in export.read_text(encoding="utf-8").splitlines()[1:]]
    return replay([(line["body"], line["hash"]) for line in lines])


def require_nothing_private(deployment: Deployment) -> None:
    """The canary is in nothing that a server has, and in no log, in no disguise."""
    searched = [path for path in (deployment.folder / "srv").rglob("*") if path.is_file()]
    searched += [*deployment.folder.glob("*.log"), *deployment.folder.glob("tap*")]
    assert searched
    for path in searched:
        content = path.read_bytes()
        found = search(content, NEEDLES, depth=1 if len(content) < _UNPACKED else 0)
        assert not found, f"{path}: {found}"


def require_no_traceback(deployment: Deployment) -> None:
    """Whoever reads a log is told in our words, and no error is only logged: but for a disk that is full."""
    for path in deployment.folder.glob("*.log"):
        assert "Traceback" not in path.read_text(encoding="utf-8", errors="replace"), path
    log = deployment.folder / "server.log"
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []:
        error = re.search(r'"error": "(\w+)", "at": ', line)  # of `JsonLines`; a kill can have cut the line
        assert error is None or error[1] == "OSError", line
