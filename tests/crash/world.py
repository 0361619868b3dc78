"""One institution that is killed again and again, and the server that asks it."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from crash.asks import Ask, Kind
from crash.killing import ANY_MOMENT, Kill, arm, choose_kill
from crash.laws import Laws, require
from crash.planted import Planted

from confide.common import failpoints
from confide.common.privacy.filter import Cap

_SITE = """
[institution]
name = "st-mary"
[dataset]
id = "people"
path = "data.jsonl"
declared_units = 20
[compute]
device = "cpu"
tokens_per_micro_batch = 128
"""
_PATIENCE = 60.0  # seconds after which a child hangs
_ASKED_AGAIN = 5
_GOES_ON = 0.3


@dataclass
class Child:
    """A running client: its process, the channel to it, and how it will end."""

    pid: int
    channel: Connection
    kill: Kill


@dataclass
class World:
    """An institution's folder and its server; ``laws`` watches both."""

    kind: Kind
    random: Random
    counts: Counter[str]
    bug: str | None = None
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="confide-crash-")))
    child: Child | None = None

    def __post_init__(self) -> None:
        self.laws = Laws(self.kind, self.folder)
        self.present = self.edit_policy()

    def play(self, kills: int) -> None:
        """Ask everything in the script, killing as often as allowed; raises `laws.Violation`."""
        self.kind.prepare(self.folder)
        until = self.counts["kills"] + kills
        try:
            for ask in self.kind.script(self.random):
                if self.counts["kills"] < until:
                    self.ask(ask)
            self.stop()
            self.laws.look()
        finally:
            self.stop()
            shutil.rmtree(self.folder)
        self.counts["institutions"] += 1
        self.counts.update(f"rows: {row['kind']}" for row, _ in self.laws.rows)

    # The server's part

    def ask(self, ask: Ask) -> None:
        """Until it is answered or declined; a killed client is asked again or, now and then, the next thing."""
        of_study = [content for item, content in self.laws.received.items() if item.study == ask.study]
        receipt = next(filter(None, map(self.kind.receipt, reversed(of_study))), "")
        for _ in range(_ASKED_AGAIN):
            fixed = self.laws.fixed_answers(ask)
            if self.child is None:
                self.start()
            reply = self.tell(replace(ask, receipt=receipt)) if self.child else None
            self.laws.look()
            if self.child is None:
                self.counts["orphans left by a kill"] += self.laws.count_orphans()
            if reply:
                self.take(ask, reply, fixed)
            self.laws.in_force, self.laws.torn = {self.present}, False
            if reply or self.random.random() < _GOES_ON:
                return

    def tell(self, ask: Ask) -> Any:
        """Send an ask, edit the policy meanwhile now and then; None if the client was killed."""
        assert self.child
        self.counts["asks"] += 1
        edit = self.kind.reads_policy_at_every_ask and self.random.random() < 0.15
        try:
            self.child.channel.send(ask)
        except BrokenPipeError:  # killed at a moment at which it had nothing to do
            return self.bury()
        if edit:
            time.sleep(self.random.random() * 0.02)
            self.present = self.edit_policy()
        return self.hear()

    def hear(self) -> Any:
        """The next reply; None if the child has ended."""
        assert self.child
        kill_after = self.child.kill.seconds if self.child.kill.place == ANY_MOMENT else None
        while True:
            if not self.child.channel.poll(_PATIENCE if kill_after is None else kill_after):
                require(kill_after is not None, "the client hangs")
                os.kill(self.child.pid, signal.SIGKILL)
                kill_after = None
                continue
            try:
                message = self.child.channel.recv()
            except (EOFError, ConnectionResetError):
                return self.bury()
            require(message[0] != "broken", f"the client does not start, or fell over: {message[-1]}")
            if message[0] != "drawn":
                return message
            self.laws.note_noise(message[1])
            self.counts["attempts computed"] += 1

    def take(self, ask: Ask, reply: Any, fixed: set[str]) -> None:
        """A refusal must have a reason; an answer is kept."""
        if reply[0] == "declined":
            self.counts[f"declined: {reply[1]}"] += 1
            require(self.laws.torn or self.laws.has_reason(ask, reply[1]), f"{ask} was declined for nothing: {reply}")
        else:
            name = "masked shares" if ask.statement else "answers"
            self.counts[f"{name} sent again" if fixed else f"new {name}"] += 1
            self.laws.note_answer(ask, reply[1], fixed)
        self.laws.require_nothing_left()

    # The institution's part

    def start(self) -> None:
        """Fork a client, which will be killed somewhere; it must open its folder and clear its outbox."""
        kill = choose_kill(self.random, self.kind.places, self.kind.longest)
        if self.random.random() < 0.3:
            self.present = self.edit_policy()
        ours, theirs = multiprocessing.Pipe()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self.live(theirs, kill)
        theirs.close()
        self.child = Child(pid, ours, kill)
        self.counts["starts"] += 1
        reply = self.hear()
        if reply:
            self.laws.require_nothing_left()

    def live(self, channel: Connection, kill: Kill) -> None:
        """All that a child does; never returns."""
        try:
            client = self.kind.client(channel.send, self.folder, arm(kill), Planted(self.bug))
            channel.send(("ready",))
            for ask in iter(channel.recv, None):
                reply = client.answer(ask)
                if reply[0] == "answer":
                    failpoints.failpoint("before-send")
                channel.send(reply)
        except BaseException:  # noqa: BLE001 - the parent is told, whatever it is
            channel.send(("broken", traceback.format_exc()))
        os._exit(0)

    def bury(self) -> None:
        """Note how a child ended."""
        assert self.child
        _, status = os.waitpid(self.child.pid, 0)
        require(os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"the client ended by itself: {status}")
        self.child.channel.close()
        self.counts["kills"] += 1
        self.counts[f"killed: {self.child.kill.place}"] += 1
        self.child = None

    def stop(self) -> None:
        """End a client that still lives; not one of the kills that are counted."""
        if self.child:
            os.kill(self.child.pid, signal.SIGKILL)
            os.waitpid(self.child.pid, 0)
            self.child.channel.close()
            self.child = None

    def edit_policy(self) -> Cap:
        """Save site.toml with another cap, as an editor does: by a rename, or in two halves."""
        cap = self.random.choice(self.kind.caps)
        self.counts["policy edits"] += 1
        self.laws.in_force = {cap} | (self.laws.in_force if self.child else set())
        limits = "".join(f"{name} = {limit}\n" for name, limit in asdict(cap).items() if limit is not None)
        policy = f"[policy]\n{self.kind.policy}{limits}"
        path = self.folder / "site.toml"
        if self.child and self.random.random() < 0.5:
            self.laws.torn = True
            path.write_text(_SITE)
            time.sleep(0.002)
            path.write_text(_SITE + policy)
        else:
            path.with_suffix(".new").write_text(_SITE + policy)
            path.with_suffix(".new").rename(path)
        return cap


def kill_clients(kind: Kind, kills: int, seed: int, bug: str | None = None) -> Counter[str]:
    """Play one institution after the other until there were so many kills; raises `laws.Violation`."""
    counts, random = Counter[str](), Random(seed)  # noqa: S311 - chooses what a test does
    kind.warm()
    while counts["kills"] < kills:
        World(kind, random, counts, bug).play(kills - counts["kills"])
    return counts
