"""Nothing private is in what a server has or a process prints; and what is there does not depend on a record."""

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.deployment import Deployment, deployed
from support.faults import NEEDLES, judge, private_records, run_file
from support.leaving import CANARY, search
from support.zygote import Zygote

# As long as any: it is read, cut and tokenised, and no class of the study is its own.
_HOSTILE_UNIT = {"text": f"{CANARY} " * 500, "label": f"code of {CANARY}", "patient": CANARY}
Seen = dict[str, Any]


def _seen(deployment: Deployment, run: str) -> Seen:
    """All of a finished run that a server can see, without times, ids, and the bytes of updates."""
    sent = [line for line in (deployment.folder / "tap").read_text(encoding="utf-8").splitlines() if "/push-" in line]
    directory = deployment.folder / "srv" / "runs" / run
    public = {"time": 0, "seconds": 0, "institutions": ["in the order of Flower's random ids"]}
    untimed = [{key: public.get(key, value) for key, value in event.items()} for event in deployment.events(run)]
    return {
        # Flower asks once for an object that two clients share, such as `declined`: who is first is luck.
        "number and sizes of what was sent": (Counter(line for line in sent if _is_own(line)), set(sent)),
        "log": [re.sub(r"run \S+|[0-9]+", "", line) for line in deployment.log("server").splitlines()],
        "events": Counter(json.dumps(event, sort_keys=True) for event in untimed),
        "files": {str(path.relative_to(directory)) for path in directory.rglob("*")},
        "rows of link.db": _rows(deployment.folder / "srv" / "link.db"),
    }


def _is_own(line: str) -> bool:
    """A whole answer, or the record that holds an update."""
    return "/push-messages" in line or json.loads(line)["bytes"] > 1000


def _rows(database: Path) -> dict[str, int]:
    """How many rows each table holds."""
    with closing(sqlite3.connect(database)) as link:
        tables = [name for (name,) in link.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: link.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0] for name in tables}  # noqa: S608


def _study(folder: Path, zygote: Zygote, base: Path, records: list[dict[str, Any]]) -> Seen:
    """A whole run, and a second run that is refused, on these records of mary's."""
    with deployed(folder, zygote) as deployment:
        deployment.add("mary", records)
        deployment.add("jude", private_records())
        deployment.start_server({"tap": str(folder / "tap")})
        for name in ("mary", "jude"):
            deployment.start_client(name)
        run = deployment.propose(run_file(folder, base))
        assert deployment.reaches(run, event="given_out")["missing"] == []
        refused = deployment.propose(run_file(folder, base, study="another"))
        assert deployment.ended(refused)["status"] == "refused"
        seen = _seen(deployment, run)
        judge(deployment)
        bodies = (folder / "tap.bodies").read_bytes()
        assert len(bodies) > 10_000
        assert search(bodies, NEEDLES) == set()
        return seen


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote, base_folder: Path) -> list[Seen]:
    """The same study twice: mary's data differ in one hostile unit."""
    data = (private_records(), [*private_records(), _HOSTILE_UNIT])
    return [_study(tmp_path_factory.mktemp("canary"), zygote, base_folder, records) for records in data]


@pytest.mark.parametrize("what", ["number and sizes of what was sent", "log", "events", "files", "rows of link.db"])
def test_a_server_sees_the_same_whatever_one_unit_is(studies: list[Seen], what: str) -> None:
    one, other = (seen[what] for seen in studies)
    assert one
    assert one == other
