"""A server's end of the fleet protocol that asks whatever a script says, in place of a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

_SECONDS = 200.0


def write_script(path: Path, batches: list[list[dict[str, Any]]]) -> None:
    """Batches of steps; those of one batch are asked at once."""
    path.write_text(json.dumps(batches), encoding="utf-8")


def as_step(name: str, kind: str, content: RecordDict) -> dict[str, Any]:
    """A message as a step."""
    records = {key: {field: _packed(value) for field, value in record.items()} for key, record in content.items()}
    return {"name": name, "kind": kind, "records": records}


def carry_out_script(script: Path, shared: Any, link: Any, queued: Any) -> Any:
    """Runs in the server: every step to every institution; the kinds of records of each answer go beside the script."""
    from confide.server.fleet.superlink import LinkGrid
    from confide.server.rounds.collect import SystemClock, collect

    grid, clock, names, told = LinkGrid(link), SystemClock(), shared.nodes(), dict[str, dict[str, list[str]]]()
    with link.run(grid):
        while len(list(grid.get_node_ids())) < len(names):
            clock.sleep(0.1)
        for batch in json.loads(script.read_text(encoding="utf-8")):
            messages = [
                Message(_content(step), node, step["kind"], ttl=600.0, group_id=step["name"])
                for step in batch
                for node in names
            ]
            for reply in collect(grid, messages, clock.now() + _SECONDS, clock):
                answers = told.setdefault(reply.metadata.group_id, {})
                answers[names[reply.metadata.src_node_id]] = _kinds(reply)
    script.with_suffix(".answers").write_text(json.dumps(told), encoding="utf-8")
    return replace(queued, status="completed")


def _content(step: dict[str, Any]) -> RecordDict:
    records = step["records"].items()
    return RecordDict(
        {key: ConfigRecord({name: _unpacked(value) for name, value in fields.items()}) for key, fields in records}
    )


def _kinds(reply: Message) -> list[str]:
    return [f"error {reply.error.code}: {reply.error.reason}"] if reply.has_error() else list(reply.content)


def _packed(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _unpacked(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
