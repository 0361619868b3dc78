"""Real installations on disk, as an administrator would write them, and a server that asks them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w
from flwr.app import Context, Message, RecordDict
from support.sites import make_records
from support.speed import CPU

from confide.client.answers.app import make_client_app
from confide.client.site.installation import Site
from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig
from confide.common.model.adapter import get_state, reset
from confide.common.model.warm_model import warm_model
from confide.common.protocol.answers import Update
from confide.common.protocol.asks import Ask
from confide.common.protocol.transfer import encode
from confide.common.protocol.wire import sha256
from confide.common.tensors import State
from confide.simulations.engines.grid import InProcessGrid, SkippingClock

GENEROUS: dict[str, Any] = {
    "max_epsilon": 100.0,
    "max_delta": 1e-3,
    "min_noise_multiplier": 0.1,
    "max_steps": 1000,
    "max_rounds": 1000,
    "max_sampling_probability": 1.0,
    "min_clip_norm": 0.01,
    "max_head_weight": 10.0,
    "min_release_seconds": 1.0,
    "base_models": ["any"],
    "require_approval": False,
}
LINEAGE = "ab" * 16


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_site(
    folder: Path, records: Sequence[dict[str, Any]] | None = None, *, name: str = "st-mary", **sections: dict[str, Any]
) -> Path:
    """A site.toml with its notes.jsonl in a folder of their own: a generous policy, changed where a test says so."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, dict[str, Any]] = {
        "institution": {"name": name},
        "dataset": {"id": "people", "path": "notes.jsonl", "declared_units": 20},
        "policy": {**GENEROUS, "studies": ["test", "small"]},
        "compute": {"device": "cpu", "tokens_per_micro_batch": 128},  # few shapes to try, of few rows
    }
    for section, values in sections.items():
        merged = {**content.get(section, {}), **values}
        content[section] = {key: value for key, value in merged.items() if value is not None}
    write_records(folder / "notes.jsonl", make_records(20) if records is None else records)
    path = folder / "site.toml"
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    return path


def start_state(run: RunConfig) -> State:
    """The adapter of round 0, as a server starts with it."""
    model = warm_model(run, CPU)
    reset(model.module, run.study.seed)
    return get_state(model.module)


class Asking:
    """A server with one institution, whose client answers over the in-process grid."""

    def __init__(self, run: RunConfig, site_of: Callable[[], Site], client: ClientProcess | None = None) -> None:
        self.run, self.replies, self.lineage = run, list[Message](), LINEAGE
        self.state = start_state(run)
        self.restart(site_of, client)

    def restart(self, site_of: Callable[[], Site], client: ClientProcess | None = None) -> None:
        """Another process of the client answers from now on."""
        app = make_client_app(lambda context: _call(site_of, context), client)
        self._grid = InProcessGrid(app, 1, SkippingClock())

    def offer(self, **changes: Any) -> RecordDict:
        return self.send(self.ask(0, **changes), "query.offer")

    def update(self, number: int = 1, **changes: Any) -> RecordDict:
        return self.send(self.ask(number, **changes), "train")

    def counts(self, number: int = 1, **changes: Any) -> RecordDict:
        return self.send(self.ask(number, **changes), "evaluate")

    def ask(self, number: int, **changes: Any) -> Ask:
        run_json = self.run.canonical_json()
        payload = encode(self.state, self.run.federation.transfer) if number else b""
        hashes = (sha256(run_json.encode()), sha256(payload))
        ask = Ask(self.run.study.name, self.lineage, number, run_json, *hashes, 1e11, adapter=payload)
        return replace(ask, **changes)

    def send(self, ask: Ask | RecordDict, kind: str) -> RecordDict:
        """The content of the reply; `replies` keeps the whole message."""
        content = ask.content() if isinstance(ask, Ask) else ask
        message = self._grid.create_message(content, kind, 1000, "1", ttl=600.0)
        [reply] = self._grid.send_and_receive([message])
        self.replies.append(reply)
        assert not reply.has_error(), "Flower sends the text of an error"
        return reply.content


def _call(site_of: Callable[[], Site], context: Context) -> Site:
    return site_of()


def kinds(content: RecordDict) -> list[str]:
    """What a reply is: `["accepted"]`, `["update"]`, `["declined"]`."""
    return list(content)


def update_of(content: RecordDict) -> Update:
    return Update.from_content(content)
