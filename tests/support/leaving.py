"""What leaves an institution: a search for a text in any of its disguises, and messages as a server sees them."""

import base64
import gzip
import json
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from support.coins import TestCoins
from support.installations import Asking, start_state, update_of, write_records, write_site
from support.sites import make_records

from confide.client.site.installation import open_site
from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig
from confide.common.config.sections import Transfer
from confide.common.protocol.answers import Acceptance, Update
from confide.common.tensors import schema_of

CANARY = "Quixotic Zebra 4481 of Kumquat Row"
_LARGEST = 2**22  # bytes of a stream that is unpacked


def disguises(text: str, tokenizer: Any) -> dict[str, bytes]:
    """The byte strings that a text can hide behind, by the name of the disguise; all in small letters."""
    found: dict[str, bytes] = {}
    for case, plain in (("", text), ("small ", text.lower())):
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            raw = plain.encode(encoding)
            found[f"{case}{encoding}"] = raw.lower()
            found[f"{case}{encoding} hex"] = raw.hex().encode()
            found |= {f"{case}{encoding} base64 {shift}": _base64(raw, shift) for shift in range(3)}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found |= {f"ids {kind}": struct.pack(f"<{len(ids)}{kind}", *ids) for kind in "qihfd"}
    found |= {f"ids with {joint!r}": joint.join(map(str, ids)).encode() for joint in (",", ", ", " ")}
    return {name: needle if name.startswith("ids ") else needle.lower() for name, needle in found.items()}


def _base64(raw: bytes, shift: int) -> bytes:
    """The part of a text's base64 that is the same whatever stands around it, ``shift`` bytes after a multiple of 3."""
    begin = -(-shift // 3) * 3 - shift
    end = begin + (len(raw) - begin) // 3 * 3
    return base64.b64encode(raw[begin:end])


def search(content: bytes, needles: dict[str, bytes], depth: int = 2) -> set[str]:
    """Which disguises a text has in some bytes, packed by zlib or gzip or not.

    Letters count as small ones: base64 is found all the same, and what is found too much would be one in 256^20.
    """
    small = content.lower()
    found = {name for name, needle in needles.items() if needle in (content if name.startswith("ids ") else small)}
    if depth:
        for inner in unpacked(content):
            found |= {f"packed {name.removeprefix('packed ')}" for name in search(inner, needles, depth - 1)}
    return found


def unpacked(content: bytes) -> Iterator[bytes]:
    """Whatever zlib or gzip make of the bytes from any place on that looks like one of their headers."""
    for place in range(len(content) - 1):
        first, second = content[place], content[place + 1]
        if first & 0x0F == 8 and first >> 4 <= 7 and (first * 256 + second) % 31 == 0:
            bits = zlib.MAX_WBITS
        elif (first, second) == (0x1F, 0x8B):
            bits = zlib.MAX_WBITS | 16
        else:
            continue
        try:
            inner = zlib.decompressobj(bits).decompress(content[place:], _LARGEST)
        except zlib.error:
            continue
        if inner:
            yield inner


def planted(text: str, tokenizer: Any) -> dict[str, bytes]:
    """A leak of each kind: the text in every disguise, and again packed, at odd places among other bytes."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    leaks = {"text": text.encode(), "shouted": text.upper().encode()}
    leaks |= {f"utf-16 {end}": text.encode(f"utf-16-{end}") for end in ("le", "be")}
    leaks |= {f"base64 {shift}": base64.b64encode(bytes(shift) + text.encode() + b"!") for shift in range(3)}
    leaks |= {"hex": text.encode().hex().encode(), "HEX": text.encode().hex().upper().encode()}
    leaks |= {f"ids {kind}": struct.pack(f"<{len(ids) + 2}{kind}", 101, *ids, 102) for kind in "qihfd"}
    leaks["ids as JSON"] = str([101, *ids, 102]).encode()
    packed = {f"zlib {name}": zlib.compress(b"..." + leak + b"...", 9) for name, leak in leaks.items()}
    packed |= {f"gzip {name}": gzip.compress(b"..." + leak) for name, leak in leaks.items()}
    packed["zlib in gzip"] = gzip.compress(b"." + zlib.compress(text.encode()))
    return {name: b"\x00\x07noise" + leak + b"\xffnoise" for name, leak in (leaks | packed).items()}


def sent(message: Message) -> bytes:
    """Every byte of a message, as Flower puts it on the wire."""
    return b"".join(value.deflate() for value in get_all_nested_objects(message).values())


# What may differ between two runs: tensors, and what is drawn or derived from them.


Form = dict[str, tuple[str, tuple[int, ...]]]


def form_of(shapes: dict[str, tuple[int, ...]], transfer: Transfer) -> Form:
    """Type and shape of every tensor in an update, by its name."""
    if transfer == "float32":
        return {name: ("F32", shape) for name, shape in shapes.items()}
    size = sum(math.prod(shape) for shape in shapes.values())
    return {"scales": ("F32", (len(shapes),)), "values": ({"float16": "F16", "int8": "I8"}[transfer], (size,))}


def visible(reply: Message, form: Form) -> dict[str, Any]:
    """All of a reply but the numbers in its tensors, and the fields of its envelope that are random or hash them.

    These fields must have their public form, and the tensors the names, types and shapes that everybody expects.
    """
    return {
        "type": reply.metadata.message_type,
        "round": reply.metadata.group_id,
        "seconds until nobody waits for it": reply.metadata.ttl,
        "kinds": ["error"] if reply.has_error() else list(reply.content),
        "size": {len(value.deflate()) for value in get_all_nested_objects(reply.content).values()},
        "content": [value.deflate() for value in get_all_nested_objects(_without_numbers(reply, form)).values()],
    }


def _without_numbers(reply: Message, form: Form) -> RecordDict:
    if "accepted" in reply.content:  # the institution's own public key: another in every installation
        acceptance = Acceptance.from_content(reply.content)
        return replace(acceptance, update_key="0" * 64).content()
    if "update" not in reply.content:
        return reply.content
    update = Update.from_content(reply.content)
    drawn = {"update_id": 32, "payload_sha256": 64, "ledger_head": 64}
    for name, digits in drawn.items():
        value = getattr(update.envelope, name)
        assert len(value) == digits, f"{name} is not what it was"
        assert set(value) <= set("0123456789abcdef"), f"{name} is not what it was"
    expected = form_of({"cells": (2,)}, "float32") if update.envelope.what == "validation" else form
    envelope = replace(update.envelope, **{name: "0" * digits for name, digits in drawn.items()})
    head = _header(update.payload, expected)
    return Update(envelope, "0" * 128, head + bytes(len(update.payload) - len(head))).content()


def _header(payload: bytes, expected: Form) -> bytes:
    """The header of a safetensors file, which must declare tensors of these types and shapes, and no more."""
    length = 8 + int.from_bytes(payload[:8], "little")
    declared = json.loads(payload[8:length])
    assert declared.pop("__metadata__", None) is None, "a note beside the tensors"
    found = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in declared.items()}
    assert found == expected, "other tensors than asked"
    return payload[:length]


class Watched:
    """One client and its site, seen by its server through a whole study; its coins are public."""

    def __init__(self, run: RunConfig, path: Path) -> None:
        self._path, self._coins = path, 0
        self._form = form_of(schema_of(start_state(run)), run.federation.transfer)
        self.restart()
        self.asking = Asking(run, lambda: self._site, self._client)

    def restart(self) -> None:
        """The client's process ends and another begins: all that it had in memory is gone."""
        self._site, self._client = open_site(self._path), ClientProcess(coins=self._next)
        if hasattr(self, "asking"):
            self.asking.restart(lambda: self._site, self._client)

    def _next(self) -> TestCoins:
        self._coins += 1
        return TestCoins(self._coins)

    def study(self) -> list[dict[str, Any]]:
        """Every reply, without the numbers in it: an offer, rounds with counts, a repeat, and three refusals."""
        ask, receipt = self.asking, ""
        ask.offer()
        for number in range(1, ask.run.federation.num_rounds + 1):
            reply = ask.update(number, receipt=receipt)
            receipt = update_of(reply).receipt() if "update" in reply else ""
            ask.counts(number)
            if number == 1:
                self.restart()
        ask.update(1)  # again: the same bytes
        ask.update(ask.run.federation.num_rounds + 1)
        ask.update(2, lineage="cd" * 16)  # beyond the plan's steps
        ask.offer(study="another")
        return [visible(reply, self._form) for reply in ask.replies]


def study(run: RunConfig, folder: Path, records: list[dict[str, Any]], **dataset: Any) -> list[dict[str, Any]]:
    """What a server sees of a study on these records."""
    settings = {"validation_fraction": 0.3, **dataset}
    return Watched(run, write_site(folder, records, dataset=settings, policy={"share_metrics": "private"})).study()


def study_kinds(run: RunConfig) -> list[str]:
    """What the replies of `study` are, whatever the data."""
    return ["accepted", *["update"] * (2 * run.federation.num_rounds + 1), *["declined"] * 3]


# A site with a canary in every place that is private


CODE = f"code of {CANARY}"


def canary_site(folder: Path, **sections: dict[str, Any]) -> Path:
    """The canary is in folders, the file's name, columns, texts, codes, group keys, the dataset id, and a comment."""
    home = folder / f"the house of {CANARY}"
    dataset = {
        "id": f"patients of {CANARY}",
        "path": f"{CANARY}.jsonl",
        "columns": {"text": CANARY, "label": "label", "group": "patient"},
        "labels": {CODE: "positive", f"no {CODE}": "negative"},
        "unit": "group",
        "validation_fraction": 0.3,
    }
    state = {"dir": f"state of {CANARY}", "anchor": f"anchor of {CANARY}"}
    merged: dict[str, Any] = {"dataset": dataset, "state": state, "policy": {"share_metrics": "private"}}
    for name, values in sections.items():
        merged[name] = {**merged.get(name, {}), **values}
    path = write_site(home, **merged)
    (home / "notes.jsonl").unlink()
    write_records(home / f"{CANARY}.jsonl", canary_records())
    with path.open("a", encoding="utf-8") as file:
        file.write(f"# {CANARY}\n")
    return path


def canary_records(count: int = 20) -> list[dict[str, Any]]:
    """Records whose every value holds the canary."""
    return [
        {
            CANARY: f"{CANARY} {record['text']} {CANARY}",
            "label": CODE if record["label"] == "positive" else f"no {CODE}",
            "patient": f"{CANARY} {number // 2}",
            "extra": CANARY,
        }
        for number, record in enumerate(make_records(count))
    ]


def transferred(run: RunConfig, transfer: Transfer) -> RunConfig:
    """The same run with another form of transfer."""
    return run.model_copy(update={"federation": run.federation.model_copy(update={"transfer": transfer})})


def grouped(run: RunConfig) -> RunConfig:
    """The same run for groups."""
    return run.model_copy(update={"privacy": run.privacy.model_copy(update={"unit": "group"})})
