"""An institution that answers every ask at once: real keys and signatures, zeros in place of training."""

import os
from dataclasses import dataclass, field, replace

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, Message, RecordDict
from safetensors.numpy import load

from confide.common.config.run import RunConfig
from confide.common.config.sections import SECURE_SUM
from confide.common.protocol.answers import Acceptance, Update, seal_envelope
from confide.common.protocol.asks import Ask
from confide.common.protocol.enrolment import JoinRequest
from confide.common.protocol.secure_sum import (
    NO_ROW,
    Shared,
    SignedShare,
    Statement,
    mask_key_of,
    masked,
    new_mask_secret,
)
from confide.common.protocol.signatures import Identity
from confide.common.protocol.sum_messages import Masked, SumAsk, seal_share, seal_sum, share_content
from confide.common.tensors import dump_state

_UNITS = 2000


@dataclass(frozen=True)
class Institution:
    """The facts that a load process needs to act as an institution.

    Attributes:
        node_key: PEM.
        seed: of the Ed25519 key.
        held: by round, the mask secret and the share of an open secure sum.
    """

    name: str
    node_key: bytes
    seed: bytes
    held: dict[int, tuple[bytes, Shared]] = field(default_factory=dict)

    @classmethod
    def make(cls, name: str) -> "Institution":
        """Make a new institution with keys of its own."""
        key = ec.generate_private_key(ec.SECP384R1())
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return cls(name, key.private_bytes(encoding, form, serialization.NoEncryption()), os.urandom(32))

    def key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key of its node."""
        loaded = serialization.load_pem_private_key(self.node_key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        return loaded

    def request(self) -> JoinRequest:
        """Return the request that `client join` would write."""
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        pem, identity = self.key().public_key().public_bytes(encoding, form).decode(), Identity(self.seed)
        request = JoinRequest(self.name, pem, identity.public_hex())
        return replace(request, signature=identity.sign(request.text()))

    def answer(self, message: Message, context: Context) -> Message:
        """Answer every ask at once, correctly signed."""
        return Message(self._answer(message), reply_to=message)

    def _answer(self, message: Message) -> RecordDict:
        kind = message.metadata.message_type
        if kind == "query.done":
            return RecordDict()
        if kind == "query.sum":
            return self._masked(SumAsk.from_content(message.content))
        ask = Ask.from_content(message.content)
        if kind == "query.offer":
            return Acceptance(self.name, _UNITS, Identity(self.seed).public_hex()).content()
        run = RunConfig.model_validate_json(ask.run_json)
        shared = run.federation.aggregation == SECURE_SUM
        return (self._share if shared else self._update)(ask, str(run.model.sha256))

    def _update(self, ask: Ask, base: str) -> RecordDict:
        """Return an update of zeros."""
        identity = Identity(self.seed)
        payload = dump_state({name: np.zeros_like(value) for name, value in load(ask.adapter).items()})
        envelope = seal_envelope(ask, "update", (self.name, base), payload, NO_ROW)
        return Update(envelope, identity.sign(envelope.text()), payload).content()

    def _share(self, ask: Ask, base: str) -> RecordDict:
        """Hold a share of zeros; return its envelope."""
        size, secret = sum(value.size for value in load(ask.adapter).values()), new_mask_secret()
        self.held[ask.round] = secret, np.zeros(size, np.uint32)
        text = seal_share(ask, (self.name, base), mask_key_of(secret), NO_ROW).text()
        return share_content(SignedShare(text, Identity(self.seed).sign(text)))

    def _masked(self, ask: SumAsk) -> RecordDict:
        """Return the held share under its masks; a server asks again after a reconnect."""
        secret, share_P = self.held[ask.round]
        numbers = masked(share_P, secret, self.name, Statement.from_text(ask.statement)).astype("<u4").tobytes()
        base = str(RunConfig.model_validate_json(ask.run_json).model.sha256)
        envelope = seal_sum(ask, (self.name, base), numbers, NO_ROW)
        return Masked(envelope, Identity(self.seed).sign(envelope.text()), numbers).content()
