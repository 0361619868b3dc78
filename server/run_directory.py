"""What a run leaves behind: locked config, events, metrics, rounds, privacy.json.

Files that only a finished run has (adapter/, report.html) come last: a run that stopped never looks finished.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from confide.common.errors import InputError
from confide.common.flower import versions
from confide.common.privacy.accounting import epsilon, epsilon_rdp
from confide.common.privacy.plan import NoPrivacy
from confide.common.run_config import RunConfig, make_plan
from confide.server.job import Event
from confide.server.participation import draw
from confide.server.roster import Institution

# What `--baselines` computes from the same records besides the run.
BASELINES = (
    "no_privacy: the same federation, without privacy",
    "central: all records as one institution, without privacy",
    "local_only: the same plan once more, for each institution alone",
)


class RunDirectory:
    """One run's folder.

    Raises:
        InputError: the folder exists and holds something.
    """

    def __init__(self, path: Path, run: RunConfig) -> None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"--out {path} must be new or empty; choose another folder")
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            content = tomli_w.dumps(_without_none(run.model_dump(mode="json")))
            (path / "run.lock.toml").write_text(content, encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {path} cannot be written: {error.strerror}; choose another folder") from None

    @classmethod
    def open(cls, path: Path, run: RunConfig) -> "RunDirectory":
        """The folder of a run that was begun before, or a new one."""
        if not (path / "run.lock.toml").is_file():
            return cls(path, run)
        directory = cls.__new__(cls)
        directory.path = path
        return directory

    def counts(self, run: RunConfig, saved: int) -> dict[str, dict[str, int]]:
        """What was asked of each institution, and what it gave, up to the last round that is not asked for again.

        Args:
            run: the run of this folder.
            saved: the last round with a checkpoint. A crash between it and the round's own line loses that line.
        """
        counts: dict[str, dict[str, int]] = {}
        events, every = self._lines("events.jsonl"), run.evaluation.validation_every
        for line in self.rounds()[-1:]:
            for name, steps in line["num_steps"].items():
                releases = line["num_releases"][name]
                counts[name] = {"num_steps": steps, "num_releases": releases, "last_asked": line["round"]}
        offered = [event["institutions"] for event in events if event["event"] == "offered"]
        names = offered[-1] if offered else []
        for name in names:
            count = counts.setdefault(name, {"num_steps": 0, "num_releases": 0, "last_asked": 0})
            for number in range(count["last_asked"] + 1, saved + 1):
                if name in draw(names, run.federation, run.study.seed, number):
                    count["num_steps"] += run.local.steps
                    count["num_releases"] += every is not None and number % every == 0
                count["last_asked"] = number
        taken = {(event["institution"], event["round"]) for event in events if event["event"] == "accepted"}
        for institution, count in counts.items():
            count["accepted"] = sum(name == institution for name, _ in taken)
        return counts

    def record(self, event: Event) -> None:
        """Append an event to events.jsonl, and a round also to metrics.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False) + "\n"
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)
        if event["event"] == "round":
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(line)

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds so far, from metrics.jsonl."""
        return self._lines("metrics.jsonl")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """A file of JSON lines; one that a crash tore is passed over."""
        path, lines = self.path / name, []
        for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else []:
            try:
                lines.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                continue
        return lines

    def write_privacy(
        self, status: str, run: RunConfig, institutions: list[Institution], *, simulated: bool, baselines: bool = False
    ) -> None:
        """Write privacy.json: what this run cost each institution at most, with everything needed to recompute it.

        ``baselines`` says that the report also holds results of the same records that this account leaves out.
        """
        rows = [_privacy_row(run, institution) for institution in institutions]
        content = {
            "status": status,
            "simulated": simulated,
            "study": run.study.name,
            "accountant": "PLD (dp-accounting), Poisson sampling",
            "adjacency": "add or remove one whole unit; changing a unit counts as two",
            "plan_sha256": run.sha256(),
            "institutions": rows,
            "not_in_this_account": list(BASELINES) if baselines else [],
            "versions": versions(),
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (self.path / "privacy.json").write_text(text, encoding="utf-8")


def spent(run: RunConfig, institution: Institution) -> float | None:
    """Epsilon of what an institution was asked for; None for a run without privacy.

    Who declined to give validation counts is not known to have: all count as if they gave them.
    """
    plan = make_plan(run, institution.declared_units)
    return None if isinstance(plan, NoPrivacy) else epsilon(plan, institution.num_steps, institution.num_releases)


def _privacy_row(run: RunConfig, institution: Institution) -> dict[str, Any]:
    plan = make_plan(run, institution.declared_units)
    row: dict[str, Any] = {"institution": institution.name, "num_steps": institution.num_steps}
    if isinstance(plan, NoPrivacy):
        return {**row, "no_privacy": True, "plan": asdict(plan)}
    return {
        **row,
        "unit": plan.unit,
        "num_releases": institution.num_releases,
        "epsilon": spent(run, institution),
        "delta": plan.target_delta,
        "epsilon_of_the_whole_plan": epsilon(plan),
        "epsilon_rdp_of_the_whole_plan": epsilon_rdp(plan),
        "plan": asdict(plan),
    }


def _without_none(value: Any) -> Any:
    """TOML has no null: an absent value is an absent key."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
