"""An approved institution that means no good: real keys, real TLS, answers of a test's choice."""

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from safetensors.numpy import save
from support.deployment import Deployment
from support.faults import private_records

from confide.client.service import link
from confide.client.site.enrolment import kit_of, node_key
from confide.client.site.installation import open_site
from confide.common.protocol.answers import Acceptance, Update, declined, seal_envelope
from confide.common.protocol.asks import Ask
from confide.common.protocol.signatures import Identity
from confide.common.tensors import State

Script = Callable[["Eve", Ask], RecordDict]


@dataclass
class Eve:
    """What a hostile client knows when it answers."""

    name: str
    identity: Identity
    base_sha256: str
    state: State  # of the adapter that was asked about, all zero
    earlier: Update | None = None  # its answer to round 1

    def update(self, ask: Ask, state: dict[str, Any], **envelope: str) -> Update:
        """Signed as it should be; the envelope says something else where a test wants it."""
        payload = save(state)
        sealed = seal_envelope(ask, "update", (self.name, self.base_sha256), payload, hashlib.sha256().hexdigest())
        sealed = replace(sealed, **envelope)  # type: ignore[arg-type]
        return Update(sealed, self.identity.sign(sealed.text()), payload)

    def first(self) -> str:
        """Name of a tensor."""
        return sorted(self.state)[0]


def honest(eve: Eve, ask: Ask) -> RecordDict:
    """An update that the gate takes."""
    eve.earlier = eve.update(ask, eve.state)
    return eve.earlier.content()


def _with(**change: Callable[[Any], Any]) -> Script:
    """The first tensor changed."""
    [(_, act)] = change.items()
    return lambda eve, ask: eve.update(ask, {**eve.state, eve.first(): act(eve.state[eve.first()])}).content()


def _another_rank(eve: Eve, ask: Ask) -> RecordDict:
    wider = {name: np.repeat(value, 2, axis=-1) for name, value in eve.state.items() if "lora" in name}
    return eve.update(ask, {**eve.state, **wider}).content()


def _replayed(eve: Eve, ask: Ask) -> RecordDict:
    assert eve.earlier
    return eve.earlier.content()


def _forged(eve: Eve, ask: Ask) -> RecordDict:
    return replace(eve.update(ask, eve.state), signature="00" * 64).content()


def _swapped(eve: Eve, ask: Ask) -> RecordDict:
    return replace(eve.update(ask, eve.state), payload=b"another payload").content()


def _says(**envelope: str) -> Script:
    return lambda eve, ask: eve.update(ask, eve.state, **envelope).content()


def _garbage(eve: Eve, ask: Ask) -> RecordDict:
    return RecordDict({"update": ConfigRecord({"safetensors": 1.5}), "anything": ConfigRecord({"at": "all"})})


# What it does, and the beginning of the reason why its answer is dropped.
HOSTILE: dict[str, tuple[Script, str]] = {
    "nan": (_with(nan=lambda value: np.full_like(value, np.nan)), "norm: "),
    "infinity": (_with(infinity=lambda value: np.full_like(value, np.inf)), "norm: "),
    "huge norm": (_with(huge=lambda value: np.full_like(value, 1e9)), "norm: "),
    "extra key": (lambda eve, ask: eve.update(ask, {**eve.state, "extra": np.zeros(1, "f4")}).content(), "keys: "),
    "missing key": (lambda eve, ask: eve.update(ask, dict([*eve.state.items()][1:])).content(), "keys: "),
    "wrong shape": (_with(turned=lambda value: value.reshape(-1)), "tensor "),
    "half precision": (_with(half=lambda value: value.astype("f2")), "tensor "),
    "another rank": (_another_rank, "size: "),
    "not safetensors": (lambda eve, ask: _raw(eve, ask, b"\x00" * 100), "format: "),
    "update of another round": (_replayed, "envelope: "),
    "another lineage": (_says(lineage="ef" * 16), "envelope: "),
    "another's name": (_says(institution="mary"), "envelope: "),
    "another base": (_says(base_sha256="0" * 64), "envelope: "),
    "forged signature": (_forged, "signature: "),
    "another payload": (_swapped, "payload_sha256 "),
    "garbage": (_garbage, "form: "),
    "declines": (lambda eve, ask: declined(), "declined"),
}


def _raw(eve: Eve, ask: Ask, payload: bytes) -> RecordDict:
    sealed = seal_envelope(ask, "update", (eve.name, eve.base_sha256), payload, "0" * 64)
    return Update(sealed, eve.identity.sign(sealed.text()), payload).content()


@contextlib.contextmanager
def scripted(
    deployment: Deployment, eve: Eve, scripts: dict[int, Script], kind: type[link.Link] = link.Link
) -> Iterator[dict[int, list[str]]]:
    """Run a client that answers an offer honestly, and each round as its script says.

    Yields:
        What was thrown in its scripts, by round; a test looks at it at the end.
    """
    site = open_site(deployment.add(eve.name, private_records()))
    deployment.scripted.add(eve.name)
    eve.identity, problems = site.identity, dict[int, list[str]]()

    def answer(message: Message, context: Context) -> Message:
        content = declined()
        try:
            if message.metadata.message_type == "query.offer":
                content = Acceptance(eve.name, 20, site.identity.public_hex()).content()
            elif message.metadata.message_type == "train":
                ask = Ask.from_content(message.content)
                content = scripts[ask.round](eve, ask)
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            problems.setdefault(int(message.metadata.group_id or 0), []).append(repr(error))
        return Message(content, reply_to=message)

    kit, stop = kit_of(site.config.state.dir), threading.Event()
    with mock.patch.object(link, "_POLL_IDLE", 0.5):
        client = kind(kit.address, kit.ca.encode(), node_key(site.config.state.dir), answer, stop)
        thread = threading.Thread(target=client.run, daemon=True)
        thread.start()
        try:
            yield problems
        finally:
            stop.set()
            thread.join(timeout=30)


def raw_answer(deployment: Deployment, request: bytes, chunks: Iterator[bytes]) -> bytes:
    """Send a request over TLS as it is, for as long as the server takes it; the first line of the answer."""
    context = ssl.create_default_context(cafile=str(deployment.folder / "srv" / "keys" / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", deployment.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as talk,
    ):
        talk.sendall(request)
        with contextlib.suppress(OSError):  # it hangs up before all is sent
            for chunk in chunks:
                talk.sendall(chunk)
        with contextlib.suppress(OSError):
            return talk.recv(4096).split(b"\r\n")[0]
    return b""
