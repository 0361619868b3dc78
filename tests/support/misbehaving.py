"""Faults of an institution, made on purpose: it is silent, late, broken or malformed."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from flwr.app import ConfigRecord, Error, Message, RecordDict

from confide.common.config.run import RunConfig
from confide.common.protocol.answers import Update
from confide.common.protocol.asks import Ask
from confide.common.protocol.signatures import Identity
from confide.common.protocol.wire import sha256
from confide.simulations.engines.grid import Answer, Faults, no_faults
from confide.simulations.sites.simulated_sites import simulated_secret


def dropout(message: Message, answer: Answer) -> tuple[float, Message | None]:
    """Lose the message: the institution never sees it."""
    return 0.0, None


def crash(message: Message, answer: Answer) -> tuple[float, Message | None]:
    """Do the work, but die before answering; Flower reports an error in place of the reply."""
    reply = answer()
    return 0.0, Message(Error(code=3, reason="the client died"), reply_to=message) if reply else None


def straggler(seconds: float) -> Faults:
    """Give the honest reply late."""

    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        return seconds, answer()

    return fault


def malformed(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Faults:
    """Send a correctly signed update whose tensors went through ``change``: NaN, another shape, an extra key."""
    from safetensors.numpy import load, save

    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        honest = Update.from_content(answer().content)
        tensors = change(dict(load(honest.payload)))
        payload = save(tensors)
        envelope = replace(honest.envelope, payload_sha256=sha256(payload))
        run = RunConfig.model_validate_json(Ask.from_content(message.content).run_json)
        identity = Identity(simulated_secret(run, envelope.institution))
        return 0.0, Message(Update(envelope, identity.sign(envelope.text()), payload).content(), reply_to=message)

    return fault


def garbage(message: Message, answer: Answer) -> tuple[float, Message | None]:
    """Send a reply that is not of our protocol."""
    return 0.0, Message(RecordDict({"update": ConfigRecord({"safetensors": b"\0" * 9})}), reply_to=message)


def schedule(faults: Mapping[tuple[int, str], Faults]) -> Faults:
    """Apply faults by (node, round); every other message gets its honest reply."""

    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        key = (message.metadata.dst_node_id, message.metadata.group_id)
        return faults.get(key, no_faults)(message, answer)

    return fault
