"""The cost of an institution's ledger: milliseconds of a round, of opening a study and of a start.

    python simulations/benchmarks/ledger.py [--rounds 50] [--studies 100] [--bytes 150000] [--json]

A round is the whole release protocol but the training: RESERVE, the outbox file and SEAL, with anchor and audit log,
all on a disk (a temporary folder; set TMPDIR for another). It is measured with an empty ledger and with one that holds
earlier studies of 40 rounds each. Bars: 50 ms a round, 5 s to open a study.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from confide.client.privacy.account import AnswerKey, LedgerRow
from confide.client.privacy.database import Database
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import FileOutbox
from confide.client.privacy.release import AnswerRequest, recover, release
from confide.client.privacy.rollback import Witnesses
from confide.client.privacy.terms import Terms
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan

_CAP = Cap(8.0, 1e-5)
_ROUNDS_OF_A_STUDY = 40
_PLAN = PrivacyPlan("record", 0.1, _ROUNDS_OF_A_STUDY, 2000, 1.0, "automatic", 20.0, 1e-5)
_LOWER = Cap(7.0, 1e-5)  # of a policy edited during a study: each RESERVE then needs an account of its own


class Institution:
    """A state folder, opened as a client opens it at its start."""

    def __init__(self, folder: Path) -> None:
        self.witnesses = Witnesses(folder / "anchor", folder / "audit.jsonl", "people")
        self.ledger = Ledger(Database(folder / "ledger.db"), Terms("people", "record", 1), self.witnesses)
        self.outbox = FileOutbox(folder / "outbox")
        self.witnesses.check(self.ledger.rows)
        self.ledger.account()
        recover(self.ledger, self.outbox)

    def open_study(self, name: str, plan: PrivacyPlan) -> None:
        """Open a study."""
        self.ledger.open_study(name, plan, _CAP)

    def answer(self, study: str, number: int, content: bytes, cap: Cap = _CAP) -> None:
        """Make one round without its training."""
        request = AnswerRequest(AnswerKey(study, "ab" * 16, "update", number), 1, 0, f"{number:064}", "2" * 64)
        release(request, self.ledger, self.outbox, lambda: (cap, None), lambda reservation, prepared: content)


def fill(folder: Path, studies: int) -> None:
    """Write a ledger with earlier studies, in few transactions, and the witnesses that it would have."""
    told: list[tuple[LedgerRow, str]] = []
    ledger = Ledger(
        Database(folder / "ledger.db"), Terms("people", "record", 1), lambda row, row_hash: told.append((row, row_hash))
    )
    for number in range(studies):
        ledger.open_study(f"earlier-{number}", _PLAN, _CAP)
    with ledger._chain.transaction():
        for number in range(studies):
            _append_rounds(ledger, f"earlier-{number}")
    witnesses = Witnesses(folder / "anchor", folder / "audit.jsonl", "people")
    lines = [json.dumps({"dataset": "people", "number": row["number"], "hash": row_hash}) for row, row_hash in told]
    (folder / "audit.jsonl").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    witnesses(*told[-1])


def _append_rounds(ledger: Ledger, study: str) -> None:
    facts = {"input_sha256": "1" * 64, "run_sha256": "2" * 64, "coins": "os", "max_epsilon": 8.0, "max_delta": 1e-5}
    for number in range(1, _ROUNDS_OF_A_STUDY + 1):
        key = {"study": study, "lineage": "cd" * 16, "what": "update", "round": number}
        row = ledger._chain.append("reserve", {**key, **facts, "attempt": 1, "steps": 1, "releases": 0})
        ledger._chain.append("seal", {"reserve": row, "sha256": "3" * 64, "bytes": 1})
        ledger._chain.append("ack", {"reserve": row})


def milliseconds(act: Callable[[], object]) -> float:
    """Return the time that an action takes."""
    started = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - started)


def measure_rounds(institution: Institution, study: str, rounds: int, content: bytes, cap: Cap = _CAP) -> float:
    """Return the median over rounds of one study."""
    institution.open_study(study, replace(_PLAN, num_steps=rounds))
    numbers = range(1, rounds + 1)
    return statistics.median(milliseconds(partial(institution.answer, study, n, content, cap)) for n in numbers)


def measure(rounds: int, studies: int, size: int) -> dict[str, float]:
    """Return all figures, in milliseconds."""
    content, facts = os.urandom(size), dict[str, float]()
    with tempfile.TemporaryDirectory() as name:
        institution = Institution(Path(name))
        facts["first_open_ms"] = milliseconds(lambda: institution.open_study("one", _PLAN))  # the order is chosen then
        facts["round_ms"] = measure_rounds(institution, "first", rounds, content)
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name), studies)
        facts["start_ms_after_studies"] = milliseconds(lambda: Institution(Path(name)))
        institution = Institution(Path(name))
        facts["open_ms_after_studies"] = milliseconds(lambda: institution.open_study("new", _PLAN))
        facts["round_ms_after_studies"] = measure_rounds(institution, "last", rounds, content)
        facts["round_ms_after_studies_and_a_lowered_cap"] = measure_rounds(institution, "more", rounds, content, _LOWER)
    return {name: round(value, 1) for name, value in facts.items()} | {"studies": studies, "rounds": rounds}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=50, help="rounds, of which the median is taken (50)")
    parser.add_argument("--studies", type=int, default=100, help="earlier studies of 40 rounds (100)")
    parser.add_argument("--bytes", type=int, default=150_000, help="size of an update (150,000)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    facts = measure(options.rounds, options.studies, options.bytes)
    print(json.dumps(facts) if options.json else "\n".join(f"{name:42} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
