"""The files of a run, read as they grow: a run of a thousand rounds is read once, and then its new lines alone."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confide.server.rounds.run_context import Event


class Tail:
    """The new whole lines of a growing JSON lines file."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new(self) -> tuple[bool, list[Event]]:
        """Return whether the file was cut since the last time, so that all is read anew; and the new events."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
        cut = size < self._offset
        if cut:
            self._offset = 0
        if size == self._offset:
            return cut, []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return cut, list(_parsed(whole))


def _parsed(content: bytes) -> Iterator[Event]:
    for line in content.splitlines():
        try:
            yield dict(json.loads(line))
        except (ValueError, TypeError):
            continue


@dataclass
class Part:
    """An institution's part in a run.

    Attributes:
        answer: to the last offer.
        asked: rounds.
        outcomes: by round: None for an accepted update, or the reason for which none was taken.
    """

    answer: str = ""
    asked: set[int] = field(default_factory=set)
    outcomes: dict[int, str | None] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        """The number of rounds whose update was taken."""
        return sum(reason is None for reason in self.outcomes.values())

    @property
    def last_drop(self) -> str | None:
        """The last reason, with its round."""
        dropped = [number for number, reason in self.outcomes.items() if reason is not None]
        return f"round {max(dropped)}: {self.outcomes[max(dropped)]}" if dropped else None


@dataclass
class Followed:
    """The facts of a run so far.

    Attributes:
        parts: by institution.
        rounds: by number: the event of its end, without the counts of each institution.
        versions: that the server offered.
        rehearsed: answers of a rehearsal.
        is_over: True once its files are written.
        given_out: the institutions that have the finished adapter; None until it was given out.
    """

    parts: dict[str, Part] = field(default_factory=lambda: defaultdict(Part))
    rounds: dict[int, Event] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    rehearsed: list[Event] = field(default_factory=list)
    is_over: bool = False
    given_out: list[str] | None = None

    def take(self, event: Event) -> None:
        """Take in the next event."""
        kind, number = event.get("event"), event.get("round", 0)
        if kind in ("offered", "offered_later"):
            self._offered(event)
        if event.get("what") == "update":
            self._asked(event)
        if kind in ("accepted", "dropped"):
            self.parts[event["institution"]].outcomes[number] = event.get("reason")
        if kind == "round":
            self._ended(event)
        if kind in ("rehearsed", "rehearsed_sum"):
            self.rehearsed.append(event)
        self.is_over |= kind == "completed"
        if kind == "given_out":
            to = event["to"] if isinstance(event["to"], list) else []  # an earlier version counted them
            self.given_out = sorted({*(self.given_out or []), *to})  # each time, of those that lacked it

    def _offered(self, event: Event) -> None:
        self.versions = event.get("versions", self.versions)
        for name in event["declared_units"]:
            self.parts[name].answer = "accepted"
        for name, answer in event["others"].items():
            self.parts[name].answer = answer

    def _asked(self, event: Event) -> None:
        """Take in an ask. A round that begins again discards its earlier outcomes, as the run itself does."""
        if event["event"] == "round_started":
            for part in self.parts.values():
                part.outcomes = {of: reason for of, reason in part.outcomes.items() if of < event["round"]}
        for name in event["institutions"]:
            self.parts[name].asked.add(event["round"])

    def _ended(self, event: Event) -> None:
        most = {what: max(event.get(what, {}).values(), default=0) for what in ("num_steps", "num_releases")}
        self.rounds[event["round"]] = {**event, **most}


class Follower:
    """The facts of one run, kept up to date from its folder. One thread at a time may ask."""

    def __init__(self, folder: Path) -> None:
        self._tail, self._facts = Tail(folder / "events.jsonl"), Followed()

    def facts(self) -> Followed:
        """Return the facts, with every whole line that is there now."""
        cut, events = self._tail.new()
        if cut:
            self._facts = Followed()
        for event in events:
            try:
                self._facts.take(event)
            except (KeyError, TypeError, AttributeError):
                continue  # of another version: the run itself refuses such a file, and says so
        return self._facts


def lines_of(path: Path) -> tuple[int, int] | None:
    """Return something that changes whenever a file grows or is replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def score_of(event: Event) -> tuple[str, float] | None:
    """Return metric and mean of a round, if it was scored."""
    score: dict[str, Any] | None = event.get("score")
    return (score["metric"], score["mean"]) if score else None
