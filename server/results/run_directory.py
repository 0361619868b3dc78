"""What a run leaves behind: locked config, events, metrics, rounds, privacy.json.

Files that only a finished run has (adapter/, report.html) come last: a run that stopped never looks finished.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from confide.common.config.run import RunConfig, make_plan
from confide.common.durable import append_durably, replace_durably
from confide.common.errors import ConfideError, InputError
from confide.common.flower import versions
from confide.common.folders import require_new
from confide.common.privacy.accounting import epsilon, epsilon_rdp
from confide.common.privacy.plan import NoPrivacy
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Event

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
        require_new(path)
        self.path = path
        try:
            self._lock(run)
        except OSError as error:
            raise InputError(f"--out {path} cannot be written: {error.strerror}; choose another folder") from None

    @classmethod
    def at(cls, path: Path) -> "RunDirectory":
        """The folder of a run, to be read; there need be none yet."""
        directory = cls.__new__(cls)
        directory.path = path
        return directory

    @classmethod
    def open(cls, path: Path, run: RunConfig) -> "RunDirectory":
        """The folder of a run that was begun before, or a new one.

        What it said to have cost is too little as soon as the run goes on: that goes, and is written again at the end.
        The locked run is written anew: a disk that was full at the run's start may have left none, or half of it.

        Raises:
            ConfideError: its events do not say what was asked of whom; then nothing goes.
            OSError: the folder cannot be written.
        """
        directory = cls.at(path)
        for name in ("events.jsonl", "metrics.jsonl"):
            _cut_torn_line(path / name)
        try:
            directory.institutions(run)
        except KeyError as missing:
            raise ConfideError(
                f"{path / 'events.jsonl'} lacks {missing}: it is damaged, or of an earlier version of Confide; put "
                "it back from a backup, resume the run with that version, or begin another study"
            ) from None
        directory._lock(run)
        (path / "privacy.json").unlink(missing_ok=True)
        return directory

    def _lock(self, run: RunConfig) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        content = run.model_dump(mode="json")
        if run.simulation:  # whose data are found from this folder too; nobody agrees to their name
            content["simulation"]["data"] = run.at(run.simulation.data)
        replace_durably(self.path / "run.lock.toml", tomli_w.dumps(_without_none(content)).encode())

    def institutions(self, run: RunConfig) -> dict[str, Institution]:
        """Everybody who ever took part, by name, with what was asked of each and what became of it."""
        known: dict[str, Institution] = {}
        for event in self.events():
            kind = event["event"]
            if kind in ("offered", "offered_later"):
                for name, declared_units in event["declared_units"].items():
                    known.setdefault(name, Institution(name, declared_units)).declared_units = declared_units
            if "what" in event:
                _asked(event, known, run)
            if kind in ("accepted", "dropped"):
                known[event["institution"]].outcomes[event["round"]] = event.get("reason")
        return known

    def record(self, event: Event) -> None:
        """Append an event to events.jsonl, and a round also to metrics.jsonl.

        Who takes part, and what is asked of whom, is on the disk when this returns: privacy.json follows from it.
        """
        line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False)
        with _whole_or_not_at_all(self.path / "events.jsonl") as path:
            if "what" in event or "declared_units" in event:
                append_durably(path, line, 0o666)
            else:
                _append(path, line)
        if event["event"] == "round":
            with _whole_or_not_at_all(self.path / "metrics.jsonl") as path:
                append_durably(path, line, 0o666)  # a resumed run goes on after the last of them

    def events(self) -> list[Event]:
        """What has happened, from events.jsonl."""
        return self._lines("events.jsonl")

    def is_over(self) -> bool:
        """Whether the run has reached its end, and all its files are written."""
        return any(event["event"] == "completed" for event in self.events())

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds so far, from metrics.jsonl; of one that was asked again, as it ended last."""
        lines = {line["round"]: line for line in self._lines("metrics.jsonl")}
        return [lines[number] for number in sorted(lines)]

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """A file of JSON lines; one that a crash tore is passed over."""
        path, lines = self.path / name, []
        for line in path.read_bytes().split(b"\n") if path.is_file() else []:
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
        replace_durably(self.path / "privacy.json", text.encode())


def _asked(event: Event, known: dict[str, Institution], run: RunConfig) -> None:
    """Count an ask of an event; a round that begins once more takes back what had become of it."""
    if event["event"] == "round_started" and event["what"] == "update":
        for institution in known.values():
            institution.goes_back(event["round"])
    for name in event["institutions"]:
        known[name].ask(event["what"], event["round"], run)


def spent(run: RunConfig, institution: Institution) -> float | None:
    """Epsilon of what an institution was asked for; None for a run without privacy.

    Who declined to give validation counts is not known to have: all count as if they gave them.
    """
    plan = make_plan(run, institution.declared_units)
    return None if isinstance(plan, NoPrivacy) else epsilon(plan, institution.num_steps, institution.num_releases)


@contextmanager
def _whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """Take back what a full disk took of a line, before the next one makes it a line in the middle of the file."""
    path.touch()
    size = path.stat().st_size
    try:
        yield path
    except OSError:
        os.truncate(path, size)
        raise


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _cut_torn_line(path: Path) -> None:
    """Take away the end of a line that a power cut left: nobody has acted on it."""
    if path.is_file():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


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
