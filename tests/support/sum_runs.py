"""A run directory whose institutions share noise, and the ways to write false statements into it."""

import hashlib
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
from flwr.app import Message
from support.sites import make_records

from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model
from confide.common.protocol.signatures import Identity
from confide.server.results.run_directory import RunDirectory
from confide.server.rounds.statements import FileStatements
from confide.simulations.engines.federation import Federation, simulate, start
from confide.simulations.engines.grid import SkippingClock
from confide.simulations.sites.simulated_sites import simulated_secret, simulated_sites

NAMES = [f"site-{number}" for number in range(4)]
Envelope = dict[str, Any]
_FEDERATION = {"num_rounds": 3, "min_clients": 3, "aggregation": "secure-sum", "weights": "declared"}


def _silent_in_round_2(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
    metadata = message.metadata
    silent = (metadata.message_type, metadata.dst_node_id, metadata.group_id) == ("query.sum", 1001, "2")
    return 0.0, None if silent else answer()


@dataclass(frozen=True)
class SumRun:
    """A run directory with the keys of its institutions, so that lies can be signed too."""

    folder: Path
    identities: dict[str, Identity]

    def statement(self, number: int) -> Path:
        return self.folder / f"rounds/statements/{number:04d}.json"

    def members(self, number: int) -> list[Envelope]:
        members = json.loads(self.statement(number).read_text(encoding="utf-8"))["members"]
        return [json.loads(text) for text, _ in members]

    def write(self, number: int, content: str) -> None:
        """Put a statement in its place; the run's events name it as theirs."""
        self.statement(number).write_text(content, encoding="utf-8")
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        self.edit_events(
            lambda event: (
                event.update(statement_sha256=sha256)
                if (event["event"], event.get("round")) == ("sum_started", number)
                else None
            )
        )

    def sign(self, number: int, envelopes: list[Envelope], by: dict[int, str] | None = None) -> None:
        """Write a statement of these envelopes. Each is signed by its own institution, or by the one in ``by``."""
        signers = {**{place: one["institution"] for place, one in enumerate(envelopes)}, **(by or {})}
        texts = [canonical(envelope) for envelope in envelopes]
        members = [[text, self.identities[signers[place]].sign(text)] for place, text in enumerate(texts)]
        self.write(number, canonical({"members": members, "protocol": "confide-sum-1"}))

    def edit_events(self, edit: Callable[[dict[str, Any]], object]) -> None:
        for name in ("events.jsonl", "metrics.jsonl"):
            lines = [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]
            for line in lines:
                edit(line)
            (self.folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def edit_privacy(self, edit: Callable[[dict[str, Any]], object]) -> None:
        content = json.loads((self.folder / "privacy.json").read_text(encoding="utf-8"))
        edit(content)
        (self.folder / "privacy.json").write_text(json.dumps(content), encoding="utf-8")

    def edit_run(self, edit: Callable[[dict[str, Any]], object]) -> None:
        """Change the run in all three files that tell it: its lock, its text, and that text's hash."""
        self.edit_lock(edit)
        content = json.loads((self.folder / "run.lock.json").read_text(encoding="utf-8"))
        edit(content)
        (self.folder / "run.lock.json").write_text(canonical(content), encoding="utf-8")
        run_sha256 = hashlib.sha256(canonical(content).encode()).hexdigest()
        self.edit_privacy(lambda content: content.update(run_sha256=run_sha256))

    def edit_lock(self, edit: Callable[[dict[str, Any]], object]) -> None:
        content = tomllib.loads((self.folder / "run.lock.toml").read_text(encoding="utf-8"))
        edit(content)
        (self.folder / "run.lock.toml").write_text(tomli_w.dumps(content), encoding="utf-8")

    def run_sha256(self) -> str:
        return str(json.loads((self.folder / "privacy.json").read_text(encoding="utf-8"))["run_sha256"])

    def make_up_institutions(self) -> None:
        """Do what the folder's owner can: make up all institutions, their signatures, and the hash of the run."""
        made_up = {name: Identity(name.encode().ljust(32)) for name in self.identities}
        keys = {name: one.public_hex() for name, one in made_up.items()}
        forged = replace(self, identities=made_up)
        forged.edit_run(lambda content: content["study"].update(keys=keys))
        for number in (1, 2, 3):
            forged.sign(number, [{**one, "run_sha256": self.run_sha256()} for one in forged.members(number)])


def make_sum_run(folder: Path, make_run: Callable[..., RunConfig], base_folder: Path) -> SumRun:
    """A run of three rounds: of four members, void without site-1, and of the three others."""
    identities = {name: Identity(simulated_secret(make_run(), name)) for name in NAMES}
    run = make_run(
        study={"institutions": NAMES, "keys": {name: one.public_hex() for name, one in identities.items()}},
        federation=_FEDERATION,
        local={"nominal_units": 20, "sampling_probability": 0.5},
        privacy={"max_colluding": 1},
    )
    run = lock(run, hash_model(base_folder))
    directory = RunDirectory(folder / "run", run)
    sites = simulated_sites(run, lambda _: {name: make_records(8) for name in NAMES}, folder / "local")
    statements = FileStatements(directory.path / "rounds/statements")
    federation = Federation(run, sites, {}, directory.record, lambda *_: None, statements=statements)
    state = start(federation, SkippingClock())
    simulate(federation, state, _silent_in_round_2)
    directory.write_privacy("completed", run, state.everybody(), simulated=True)
    return SumRun(directory.path, identities)


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
