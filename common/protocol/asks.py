"""Asks of a server: a round, an offer, a finished run. The asks of a secure sum are in sum_messages.py.

An ask is a "train" message with ConfigRecords `ask` and `adapter`. An "evaluate" message of the same form asks for
noised validation counts. The reply to either carries ConfigRecord `update`, or `declined` and no more. An offer is a
"query.offer" message with ConfigRecord `ask`; its reply carries `accepted`.
"""

from dataclasses import asdict, dataclass
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from confide.common.config.run import MAX_RUN_BYTES
from confide.common.protocol.versions import own_versions, require_same
from confide.common.protocol.wire import MessageError, record, sha256, typed

# The files of a finished adapter; the first two are PEFT's.
CONFIG_FILE, WEIGHTS_FILE, HEAD_FILE = "adapter_config.json", "adapter_model.safetensors", "head.safetensors"
RUN_FILE, CARD_FILE = "run.json", "README.md"
ADAPTER_FILES = {CONFIG_FILE, WEIGHTS_FILE, HEAD_FILE, RUN_FILE, CARD_FILE}


@dataclass(frozen=True)
class Ask:
    """The server's ask of every institution in a round (round 0: the offer, without an adapter)."""

    study: str
    lineage: str  # 16 random bytes of the run, hex; kept through every resume
    round: int
    run_json: str  # the locked run, canonical JSON
    run_sha256: str
    input_sha256: str  # of the adapter's bytes
    deadline_unix: float
    receipt: str = ""  # the institution's own last envelope and signature (`Signed.receipt`), once the server has it
    adapter: bytes = b""

    def content(self) -> RecordDict:
        """Return it as records of a Flower message."""
        if len(self.run_json.encode()) > MAX_RUN_BYTES:
            raise MessageError(f"the locked run takes more than {MAX_RUN_BYTES} bytes")
        values = {key: value for key, value in asdict(self).items() if key != "adapter"}
        ask = ConfigRecord({**own_versions(), **values})
        return RecordDict({"ask": ask, "adapter": ConfigRecord({"safetensors": self.adapter})})

    @classmethod
    def from_content(cls, content: RecordDict) -> "Ask":
        """Make it from the unchecked records of a message.

        Raises:
            VersionError: the server runs other versions; this is checked before anything else.
            MessageError: the form is wrong, or a hash does not match.
        """
        values = asked_values(content)
        ask: Ask = typed(cls, {**values, "adapter": record(content, "adapter").get("safetensors")})
        require_run_hash(ask.run_json, ask.run_sha256)
        if sha256(ask.adapter) != ask.input_sha256:
            raise MessageError("input_sha256 does not match the adapter")
        if ask.round < 0:
            raise MessageError("form: round must not be negative")
        return ask


def asked_values(content: RecordDict) -> dict[str, Any]:
    """Return the fields of record `ask`, unchecked, after its versions were compared: before anything else.

    Raises:
        VersionError: the server runs other versions.
        MessageError: there is no such record.
    """
    values: dict[str, Any] = dict(record(content, "ask"))
    require_same(values, "the server")
    return {key: value for key, value in values.items() if key not in own_versions()}


def require_run_hash(run_json: str, run_sha256: str) -> None:
    """Check that a hash is that of a locked run, which is no longer than one may be; else raise `MessageError`."""
    if len(run_json.encode()) > MAX_RUN_BYTES or sha256(run_json.encode()) != run_sha256:
        raise MessageError("run_sha256 does not match the run")


@dataclass(frozen=True)
class Finished:
    """The finished adapter on its way to the institutions: its files by name, and the receipt of their last update."""

    study: str
    lineage: str
    run_sha256: str
    receipt: str
    files: dict[str, bytes]

    def content(self) -> RecordDict:
        """Return it as records of a Flower message."""
        facts: dict[str, Any] = {
            "study": self.study,
            "lineage": self.lineage,
            "run_sha256": self.run_sha256,
            "receipt": self.receipt,
        }
        return RecordDict({"done": ConfigRecord(facts), "files": ConfigRecord(dict(self.files))})

    @classmethod
    def from_content(cls, content: RecordDict) -> "Finished":
        """Make it from the unchecked records of a message; `MessageError` for another form."""
        files = dict(record(content, "files"))
        if not (files.keys() <= ADAPTER_FILES and all(isinstance(value, bytes) for value in files.values())):
            raise MessageError("form: not the files of an adapter")
        finished: Finished = typed(cls, {**record(content, "done"), "files": files})
        return finished
