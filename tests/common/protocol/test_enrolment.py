"""Requests and kits: signed, whole, and nothing else is taken for one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.common.errors import InputError
from confide.common.protocol.enrolment import JoinRequest, Kit, read_kit, read_request, signed_by, write_json
from confide.common.protocol.signatures import Identity

IDENTITY = Identity(b"i" * 32)
UNSIGNED = JoinRequest("st-mary", "-----BEGIN PUBLIC KEY-----", IDENTITY.public_hex())
REQUEST = replace(UNSIGNED, signature=IDENTITY.sign(UNSIGNED.text()))


def _file(folder: Path, value: JoinRequest | Kit) -> Path:
    path = folder / "file.json"
    path.write_text(write_json(value), encoding="utf-8")
    return path


def test_a_request_and_a_kit_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert read_request(_file(tmp_path, REQUEST)) == REQUEST
    kit = Kit("fl.example.org:8443", "pem", "st-mary", REQUEST.fingerprint())
    assert read_kit(_file(tmp_path, kit)) == kit


@pytest.mark.parametrize("field", ["institution", "node_key", "update_key", "signature"])
def test_a_request_with_a_changed_field_is_refused(tmp_path: Path, field: str) -> None:
    changed = replace(REQUEST, **{field: "0" + getattr(REQUEST, field)[1:] + "0"})
    with pytest.raises(InputError, match="signature"):
        read_request(_file(tmp_path, changed))


@pytest.mark.parametrize("field", ["node_key", "update_key"])
def test_another_key_has_another_fingerprint(field: str) -> None:
    assert replace(REQUEST, **{field: "other"}).fingerprint() != REQUEST.fingerprint()
    assert replace(REQUEST, institution="other").fingerprint() == REQUEST.fingerprint()


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    """An operator may edit a kit's address by hand, on Windows."""
    path = _file(tmp_path, REQUEST)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_request(path) == REQUEST


def test_a_request_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="confide-kit-1"):
        read_kit(_file(tmp_path, REQUEST))


@given(
    content=st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.text(max_size=9), st.lists).map(json.dumps))
)
def test_whatever_a_file_holds_is_refused_in_one_line(
    content: bytes | str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("join") / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as refused:
        read_request(path)
    assert "\n" not in str(refused.value)


def test_what_is_no_key_and_no_signature_signs_nothing() -> None:
    assert signed_by(IDENTITY.public_hex(), "text", IDENTITY.sign("text"))
    for key, signature in (("", ""), ("zz", "zz"), (IDENTITY.public_hex(), "00"), ("00" * 32, IDENTITY.sign("text"))):
        assert not signed_by(key, "text", signature)


def test_a_request_with_half_a_character_is_refused(tmp_path: Path) -> None:
    """No fingerprint can be made of it."""
    half = replace(UNSIGNED, node_key="\ud800")
    with pytest.raises(InputError, match="half a character"):
        read_request(_file(tmp_path, replace(half, signature=IDENTITY.sign(half.text()))))
