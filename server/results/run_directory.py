"""The files of a run: locked config, events, metrics, rounds, privacy.json.

Files of a finished run (adapter/, report.html) are written last, so that a stopped run never looks finished.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from confide.common.config.run import RunConfig, make_plan
from confide.common.durable import append_durably, cut_torn_line, replace_durably, whole_or_not_at_all
from confide.common.errors import ConfideError, InputError
from confide.common.flower import versions
from confide.common.folders import require_new
from confide.common.privacy.accounting import epsilon, epsilon_rdp
from confide.common.privacy.plan import NoPrivacy
from confide.server.results.findings import BASELINES
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Event
from confide.server.rounds.statements import FileStatements


class RunDirectory:
    """The folder of one run.

    Raises:
        InputError: the folder exists and is not empty, or cannot be written.
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
        """Return the folder of a run for reading. It need not exist yet."""
        directory = cls.__new__(cls)
        directory.path = path
        return directory

    @classmethod
    def open(cls, path: Path, run: RunConfig) -> "RunDirectory":
        """Open the folder of a run that was begun before, or make a new one.

        An old privacy.json would be too low once the run goes on. It is deleted, and written again at the end. The
        locked run is written anew, because a full disk at the run's start may have left none, or half of it.

        Raises:
            ConfideError: its events lack the asks of an institution; then nothing is deleted.
            OSError: the folder cannot be written.
        """
        directory = cls.at(path)
        for name in ("events.jsonl", "metrics.jsonl"):
            cut_torn_line(path / name)
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
        replace_durably(self.path / "run.lock.json", run.canonical_json().encode())  # the very text that people approve
        content = run.model_dump(mode="json")
        if run.simulation:  # the path must hold from this folder too; no institution has to approve it
            content["simulation"]["data"] = run.at(run.simulation.data)
        replace_durably(self.path / "run.lock.toml", tomli_w.dumps(_without_none(content)).encode())

    def institutions(self, run: RunConfig) -> dict[str, Institution]:
        """Return all institutions that ever took part, by name, with their asks and the outcomes."""
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

        Participants and asks are on the disk when this returns, because privacy.json is computed from them.
        """
        line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False)
        with whole_or_not_at_all(self.path / "events.jsonl") as path:
            if "what" in event or "declared_units" in event:
                append_durably(path, line, 0o666)
            else:
                _append(path, line)
        if event["event"] == "round":
            with whole_or_not_at_all(self.path / "metrics.jsonl") as path:
                append_durably(path, line, 0o666)  # a resumed run continues after the last of these lines

    def events(self) -> list[Event]:
        """Return the events so far, from events.jsonl."""
        return self._lines("events.jsonl")

    def is_over(self) -> bool:
        """Return whether the run has reached its end and all its files are written."""
        return any(event["event"] == "completed" for event in self.events())

    def rounds(self) -> list[dict[str, Any]]:
        """Return the rounds so far, from metrics.jsonl. A round that was repeated counts as it ended last."""
        lines = {line["round"]: line for line in self._lines("metrics.jsonl")}
        return [lines[number] for number in sorted(lines)]

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of a JSON lines file, without any that a crash tore."""
        path, lines = self.path / name, []
        for line in path.read_bytes().split(b"\n") if path.is_file() else []:
            try:
                lines.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                continue
        return lines

    def write_privacy(
        self,
        status: str,
        run: RunConfig,
        institutions: list[Institution],
        *,
        simulated: bool,
        baselines: Iterable[str] = (),
    ) -> None:
        """Write privacy.json: the most that this run cost each institution, and everything needed to recompute it.

        ``baselines`` names results from the same records that the report holds and this account leaves out.
        """
        least = FileStatements(self.path / "rounds/statements").least_members()
        rows = [_privacy_row(run, institution, least) for institution in institutions]
        content = {
            "status": status,
            "simulated": simulated,
            "study": run.study.name,
            "accountant": "PLD (dp-accounting), Poisson sampling",
            "adjacency": "add or remove one whole unit; changing a unit counts as two",
            "run_sha256": run.sha256(),
            "institutions": rows,
            "not_in_this_account": [f"{name}: {BASELINES[name]}" for name in baselines],
            "versions": versions(),
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        replace_durably(self.path / "privacy.json", text.encode())


def _asked(event: Event, known: dict[str, Institution], run: RunConfig) -> None:
    """Count the asks of an event. A round that begins again discards its earlier outcomes."""
    if event["event"] == "round_started" and event["what"] == "update":
        for institution in known.values():
            institution.forget_from_round(event["round"])
    for name in event["institutions"]:
        known[name].ask(event["what"], event["round"], run)


def spent(run: RunConfig, institution: Institution) -> float | None:
    """Return the epsilon of all asks to an institution; None for a run without privacy.

    The server cannot know which institutions declined to give validation counts. All count as if they gave them.
    """
    plan = make_plan(run, institution.declared_units)
    return None if isinstance(plan, NoPrivacy) else epsilon(plan, institution.num_steps, institution.num_releases)


def spent_if_broken(run: RunConfig, institution: Institution) -> float | None:
    """Return the same epsilon if all other members of a secure sum collude; None where no noise is shared."""
    plan = make_plan(run, institution.declared_units)
    if isinstance(plan, NoPrivacy) or plan.sharing is None:
        return None
    return epsilon(plan.if_broken, institution.num_steps, institution.num_releases)


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _privacy_row(run: RunConfig, institution: Institution, least_members: int | None) -> dict[str, Any]:
    plan = make_plan(run, institution.declared_units)
    row: dict[str, Any] = {"institution": institution.name, "num_steps": institution.num_steps}
    if isinstance(plan, NoPrivacy):
        return {**row, "no_privacy": True, "plan": asdict(plan)}
    row |= {
        "unit": plan.unit,
        "num_releases": institution.num_releases,
        "epsilon": spent(run, institution),
        "delta": plan.target_delta,
        "epsilon_of_the_whole_plan": epsilon(plan),
        "epsilon_rdp_of_the_whole_plan": epsilon_rdp(plan),
        "plan": plan.as_fields(),
    }
    if plan.sharing is not None:
        row["epsilon_if_broken"] = spent_if_broken(run, institution)
        row["epsilon_if_broken_of_the_whole_plan"] = epsilon(plan.if_broken)
        row |= {"max_colluding": plan.sharing.max_colluding, "least_members": least_members}
    return row


def _without_none(value: Any) -> Any:
    """Remove keys without a value, because TOML has no null."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
