import contextlib
import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from confide.common.protocol.answers import Acceptance, Envelope, Update, declined, is_declined, seal_envelope
from confide.common.protocol.asks import Ask
from confide.common.protocol.signatures import Identity
from confide.common.protocol.signed import read_receipt
from confide.common.protocol.wire import MessageError, sha256

RUN = '{"study":{"name":"test"}}'
ASK = Ask("test", "0f" * 16, 3, RUN, sha256(RUN.encode()), sha256(b"adapter"), 1e9, "{}", b"adapter")
IDENTITY = Identity(bytes(32))
ENVELOPE = seal_envelope(ASK, "update", ("st-mary", "ab" * 32), b"payload", "cd" * 32)
UPDATE = Update(ENVELOPE, IDENTITY.sign(ENVELOPE.text()), b"payload")

TEXT = st.text(st.characters(), max_size=8)  # lone surrogates too
VALUE = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXT | st.binary(max_size=8)
CONFIG = VALUE.filter(lambda value: value is not None)


def _changed(record: ConfigRecord, **changes: Any) -> ConfigRecord:
    """A record with values replaced, or removed where they are None."""
    return ConfigRecord({key: value for key, value in {**record, **changes}.items() if value is not None})


def test_an_ask_comes_back_as_it_went_out() -> None:
    assert Ask.from_content(ASK.content()) == ASK


def test_an_update_comes_back_as_it_went_out() -> None:
    assert Update.from_content(UPDATE.content()) == UPDATE
    assert UPDATE.envelope.payload_sha256 == sha256(b"payload")
    assert UPDATE.envelope.input_sha256 == ASK.input_sha256
    assert UPDATE.content()["update"].keys() == {"safetensors", "envelope", "signature"}


@given(payload=st.binary(max_size=64))
def test_an_update_comes_back_from_its_file_as_it_was(payload: bytes) -> None:
    """The outbox file is the answer: a resend is byte-identical."""
    update = replace(UPDATE, payload=payload)
    assert Update.from_bytes(update.to_bytes()) == update
    assert Update.from_bytes(update.to_bytes()).to_bytes() == update.to_bytes()
    assert Update.from_bytes(update.to_bytes()).content() == update.content()


def test_what_is_signed_comes_back_in_a_receipt_as_it_was() -> None:
    """Every field, in one canonical text: the institution knows its own signature again, and no other text's."""
    envelope, signature = read_receipt(Envelope, UPDATE.receipt())
    assert (envelope, signature) == (UPDATE.envelope, UPDATE.signature)
    assert IDENTITY.signed_by_me(envelope.text(), signature)
    for name, value in asdict(envelope).items():
        other = replace(envelope, **{name: 7 if name == "round" else f"{value}0"})
        assert not IDENTITY.signed_by_me(other.text(), signature), name
    assert envelope.text() == json.dumps(json.loads(envelope.text()), sort_keys=True, separators=(",", ":"))


def test_two_seals_have_two_ids() -> None:
    again = seal_envelope(ASK, "update", ("st-mary", "ab" * 32), b"payload", "cd" * 32)
    assert again.update_id != ENVELOPE.update_id
    assert replace(again, update_id=ENVELOPE.update_id) == ENVELOPE


ACCEPTANCE = Acceptance("st-mary", 2000, IDENTITY.public_hex())


def test_an_acceptance_comes_back_as_it_went_out() -> None:
    assert Acceptance.from_content(ACCEPTANCE.content()) == ACCEPTANCE


def test_declined_carries_nothing() -> None:
    assert is_declined(declined())
    assert dict(declined()["declined"]) == {}
    assert not is_declined(UPDATE.content())
    assert not is_declined(RecordDict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": 1}, "both need the same"),
        ({"confide": "0.0.0"}, "confide .0.0.0. with"),
        ({"flwr": None}, "flwr .None."),
        ({"study": None}, "fields of Ask"),
        ({"extra": 1}, "fields of Ask"),
        ({"receipt": None}, "fields of Ask"),
        ({"receipt": b"{}"}, "receipt must be str"),
        ({"round": -1}, "round must not be negative"),
        ({"round": True}, "round must be int"),
        ({"deadline_unix": 5}, "deadline_unix must be float"),
        ({"run_json": "{}"}, "run_sha256"),
        ({"run_sha256": "0" * 64}, "run_sha256"),
        ({"input_sha256": "0" * 64}, "input_sha256"),
    ],
)
def test_an_ask_of_another_form_is_refused(changes: dict[str, Any], message: str) -> None:
    content = ASK.content()
    content["ask"] = _changed(content["ask"], **changes)
    with pytest.raises(MessageError, match=message):
        Ask.from_content(content)


def test_an_ask_with_another_adapter_is_refused() -> None:
    content = ASK.content()
    content["adapter"] = ConfigRecord({"safetensors": b"other"})
    with pytest.raises(MessageError, match="input_sha256"):
        Ask.from_content(content)


@pytest.mark.parametrize("deadline", [float("nan"), float("inf"), -float("inf")])
def test_an_ask_without_an_end_is_refused(deadline: float) -> None:
    """`now > nan` is false for ever: no client would ever be past such a deadline."""
    with pytest.raises(MessageError):
        Ask.from_content(replace(ASK, deadline_unix=deadline).content())


@pytest.mark.parametrize("lineage", ["", "0f" * 15, "../" * 10 + "ab", "0F" * 16, "zz" * 16])
def test_an_ask_whose_lineage_is_not_16_bytes_in_hex_is_refused(lineage: str) -> None:
    with pytest.raises(MessageError):
        Ask.from_content(replace(ASK, lineage=lineage).content())


def test_a_run_that_is_too_long_is_refused_at_both_ends() -> None:
    run = '"' + "x" * 65_536 + '"'
    ask = replace(ASK, run_json=run, run_sha256=sha256(run.encode()))
    with pytest.raises(MessageError, match="65536"):
        ask.content()
    content = ASK.content()
    content["ask"] = _changed(content["ask"], run_json=run, run_sha256=ask.run_sha256)
    with pytest.raises(MessageError):
        Ask.from_content(content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"safetensors": "payload"}, "record 'update' must be 'safetensors', envelope and signature"),
        ({"envelope": None}, "record 'update' must be 'safetensors', envelope and signature"),
        ({"loss": 0.5}, "record 'update' must be 'safetensors', envelope and signature"),
        ({"envelope": "[" * 4000}, "not JSON"),
        ({"envelope": "x" * 5000}, "not an envelope"),
        ({"envelope": b"{}"}, "not an envelope"),
        ({"signature": None}, "record 'update' must be 'safetensors', envelope and signature"),
        ({"signature": b"12" * 64}, "not an envelope"),
        ({"signature": ""}, "64 bytes in hex"),
        ({"signature": "12" * 63}, "64 bytes in hex"),
        ({"signature": "AB" * 64}, "64 bytes in hex"),
        ({"signature": "12" * 64 + "\n"}, "64 bytes in hex"),
        ({"envelope": "[]"}, "not a JSON object"),
        ({"envelope": json.dumps({**asdict(UPDATE.envelope), "loss": 1})}, "fields of Envelope"),
        ({"envelope": json.dumps({**asdict(UPDATE.envelope), "round": 3.0})}, "round must be int"),
        ({"envelope": json.dumps({**asdict(UPDATE.envelope), "what": 1})}, "what must be str"),
        ({"safetensors": b"other"}, "payload_sha256"),
    ],
)
def test_an_update_of_another_form_is_refused(changes: dict[str, Any], message: str) -> None:
    content = UPDATE.content()
    content["update"] = _changed(content["update"], **changes)
    with pytest.raises(MessageError, match=message):
        Update.from_content(content)


def test_an_answer_that_protocol_1_sealed_is_refused_and_says_what_follows() -> None:
    """There ``run_sha256`` had another name, and the institution's signature is over that text."""
    values = asdict(UPDATE.envelope)
    old = json.dumps({"plan_sha256": values.pop("run_sha256"), **values}, sort_keys=True, separators=(",", ":"))
    receipt = json.dumps({"envelope": old, "signature": UPDATE.signature})
    with pytest.raises(MessageError, match="sealed by another version of Confide"):
        Update.from_bytes(receipt.encode() + b"\n" + UPDATE.payload)


@pytest.mark.parametrize("record", [ArrayRecord(), MetricRecord({"x": 1.0})])
def test_a_record_of_another_kind_is_refused(record: Any) -> None:
    for parse, name in (
        (Ask.from_content, "ask"),
        (Update.from_content, "update"),
        (Acceptance.from_content, "accepted"),
    ):
        for content in (RecordDict(), RecordDict({name: record})):
            with pytest.raises(MessageError, match="no record"):
                parse(content)


@pytest.mark.parametrize("units", [0, -5, True, "many"])
def test_an_acceptance_without_units_is_refused(units: Any) -> None:
    with pytest.raises(MessageError):
        Acceptance.from_content(replace(ACCEPTANCE, declared_units=units).content())


@given(key=st.sampled_from([*ASK.content()["ask"], "more"]), value=VALUE | TEXT)
def test_no_ask_can_do_more_than_be_refused(key: str, value: Any) -> None:
    content = ASK.content()
    content["ask"] = _changed(content["ask"], **{key: value})
    with contextlib.suppress(MessageError):
        Ask.from_content(content)


@given(payload=CONFIG)
def test_no_adapter_of_an_ask_can_do_more_than_be_refused(payload: Any) -> None:
    content = ASK.content()
    content["adapter"] = ConfigRecord({"safetensors": payload})
    with contextlib.suppress(MessageError):
        Ask.from_content(content)


@pytest.mark.parametrize("key", ["study", "run_json", "receipt"])
def test_an_ask_with_half_a_character_is_refused(key: str) -> None:
    """Python strings can hold lone surrogates, which no file and no log can."""
    content = ASK.content()
    content["ask"] = _changed(content["ask"], **{key: "\ud800"})
    with pytest.raises(MessageError):
        Ask.from_content(content)


@given(values=st.dictionaries(st.sampled_from(["safetensors", "envelope", "signature", "more"]), CONFIG | TEXT))
def test_no_update_can_do_more_than_be_refused(values: dict[str, Any]) -> None:
    with contextlib.suppress(MessageError):
        Update.from_content(RecordDict({"update": ConfigRecord(values)}))


def _with_envelope(text: str) -> RecordDict:
    values = {"safetensors": b"payload", "envelope": text, "signature": UPDATE.signature}
    return RecordDict({"update": ConfigRecord(values)})


SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
ENVELOPE_KEYS = st.sampled_from([*asdict(UPDATE.envelope), "more"])


@given(key=ENVELOPE_KEYS, value=SCALAR | st.lists(SCALAR), cut=st.integers(0, 800))
def test_no_envelope_can_do_more_than_be_refused(key: str, value: Any, cut: int) -> None:
    envelope = json.dumps({**asdict(UPDATE.envelope), key: value})
    for text in (envelope, envelope[:cut]):
        with contextlib.suppress(MessageError):
            Update.from_content(_with_envelope(text))


@pytest.mark.parametrize("key", ["study", "lineage", "institution", "run_sha256", "update_id"])
def test_an_envelope_with_half_a_character_is_refused(key: str) -> None:
    """Python's JSON reads it; a server that then wrote the name to a file or a log would stop there."""
    with pytest.raises(MessageError):
        Update.from_content(_with_envelope(json.dumps({**asdict(UPDATE.envelope), key: "\ud800"})))


@given(key=ENVELOPE_KEYS, value=SCALAR | st.lists(SCALAR), cut=st.integers(0, 1200))
def test_no_receipt_can_do_more_than_be_refused(key: str, value: Any, cut: int) -> None:
    """It comes from the server; what it says is checked against the institution's own signature afterwards."""
    envelope = json.dumps({**asdict(UPDATE.envelope), key: value})
    receipt = json.dumps({"envelope": envelope, "signature": UPDATE.signature})
    for text in (receipt, receipt[:cut], envelope):
        with contextlib.suppress(MessageError):
            assert isinstance(read_receipt(Envelope, text)[0].round, int)


@given(text=TEXT | st.sampled_from(["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "null", '{"envelope": 1}', "{}"]))
def test_no_text_as_a_receipt_can_do_more_than_be_refused(text: str) -> None:
    with pytest.raises(MessageError):
        read_receipt(Envelope, text)
