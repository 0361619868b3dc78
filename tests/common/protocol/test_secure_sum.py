"""Guarantee: masks cancel in the sum over all members of one statement, and in nothing else."""

import json
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from support.planting import Planted, require_caught
from support.sums import BASE, INPUT, LINEAGE, NAMES, RUN, holder, holders, looks_uniform, statement_of

from confide.common.protocol import secure_sum
from confide.common.protocol.secure_sum import (
    MAX_STATEMENT_BYTES,
    SignedShare,
    Statement,
    as_signed,
    require_mask_key,
    total,
)
from confide.common.protocol.sum_messages import Masked, SumAsk, seal_sum, share_content, share_from, share_from_bytes
from confide.common.protocol.wire import MessageError

SIZE = 4096


def test_the_masks_of_all_members_cancel() -> None:
    members = holders(5, SIZE)
    statement = statement_of(members)
    found = secure_sum.total([secure_sum.masked(one.share_P, one.secret, one.name, statement) for one in members])
    assert (found == total([one.share_P for one in members])).all()
    assert np.abs(as_signed(found)).max() < 5000


def test_all_but_one_of_the_answers_look_uniform() -> None:
    members = holders(5, SIZE)
    statement = statement_of(members)
    answers = [secure_sum.masked(one.share_P, one.secret, one.name, statement) for one in members]
    for count in range(1, 5):
        for some in combinations(answers, count):
            assert looks_uniform(total(list(some)))
    assert not looks_uniform(total(answers))


def test_answers_under_two_statements_show_nothing_together() -> None:
    """Equivocation: a server shows one statement to some members and another to the others."""
    members = holders(7, SIZE)
    first, second = statement_of(members[:6]), statement_of([*members[:5], members[6]])
    mixed = [secure_sum.masked(one.share_P, one.secret, one.name, first) for one in members[:3]]
    mixed += [secure_sum.masked(one.share_P, one.secret, one.name, second) for one in (*members[3:5], members[6])]
    mixed.append(secure_sum.masked(members[5].share_P, members[5].secret, members[5].name, first))
    assert all(looks_uniform(total(part)) for part in (mixed, mixed[:3] + mixed[6:], mixed[3:6], mixed[:1]))


def test_a_mask_changes_with_all_that_it_is_of() -> None:
    base = secure_sum.pair_mask(b"s" * 32, b"h" * 32, ("a", "b"), 256)
    others = [
        secure_sum.pair_mask(b"t" * 32, b"h" * 32, ("a", "b"), 256),
        secure_sum.pair_mask(b"s" * 32, b"i" * 32, ("a", "b"), 256),
        secure_sum.pair_mask(b"s" * 32, b"h" * 32, ("a", "c"), 256),
        secure_sum.pair_mask(b"s" * 32, b"h" * 32, ("ab", ""), 256),
    ]
    for other in others:
        assert (base != other).mean() > 0.9
    assert looks_uniform(secure_sum.pair_mask(b"s" * 32, b"h" * 32, ("a", "b"), 60_000))


def test_every_share_has_a_mask_key_of_its_own() -> None:
    keys = {holder(NAMES[0], round_number=number).envelope.mask_key for number in range(20)}
    assert len(keys) == 20


@pytest.mark.parametrize("key", ["00" * 32, "01" + "00" * 31, "12" * 31, "zz" * 32, ""])
def test_a_mask_key_that_gives_no_secret_is_refused(key: str) -> None:
    with pytest.raises(MessageError, match="not a key of X25519"):
        require_mask_key(key)


def test_a_statement_has_one_text() -> None:
    statement = statement_of(holders(3))
    assert Statement.from_text(statement.text()) == statement
    members = json.loads(statement.text())["members"]
    for text in (
        statement.text().replace(":", ": ", 1),
        json.dumps({"members": members, "protocol": "confide-sum-2"}, separators=(",", ":")),
        json.dumps({"members": members, "protocol": "confide-sum-1", "more": 1}, separators=(",", ":")),
        json.dumps({"members": [[*member, ""] for member in members], "protocol": "confide-sum-1"}),
        json.dumps({"members": {}, "protocol": "confide-sum-1"}),
        '{"members":' + "[" * 100_000,
        "[]",
        "",
        "x" * (MAX_STATEMENT_BYTES + 1),
    ):
        with pytest.raises(MessageError):
            Statement.from_text(text)


def test_an_envelope_has_one_text_and_exact_types() -> None:
    share = holder(NAMES[0]).signed()
    assert share_from(share_content(share)) == share
    values = json.loads(share.text)
    for wrong in (
        {**values, "round": True},
        {**values, "round": 1.0},
        {**values, "more": 1},
        {name: value for name, value in values.items() if name != "mask_key"},
        {**values, "lineage": "x"},
    ):
        with pytest.raises(MessageError):
            SignedShare(json.dumps(wrong, sort_keys=True, separators=(",", ":")), share.signature).envelope()
    with pytest.raises(MessageError, match="canonical"):
        SignedShare(json.dumps(values), share.signature).envelope()


def test_a_masked_share_of_another_size_is_refused() -> None:
    ask = SumAsk("reviews", LINEAGE, 1, "{}", RUN, INPUT, 0.0, "")
    for size in (0, 4 * 63, 4 * 64 + 4):
        envelope = seal_sum(ask, (NAMES[0], BASE), bytes(size), "4" * 64)
        answer = Masked.from_content(Masked(envelope, "5" * 128, bytes(size)).content())
        with pytest.raises(MessageError, match="size"):
            answer.numbers(64)
    wrong = Masked(envelope, "5" * 128, b"other")
    with pytest.raises(MessageError, match="payload_sha256"):
        Masked.from_content(wrong.content())


def _keys_differ() -> None:
    assert secure_sum.new_mask_secret() != secure_sum.new_mask_secret()


def _complete_graph() -> None:
    """Every pair of members has a mask: one that is left out would open to those who collude between the two."""
    members = holders(5, SIZE)
    statement = statement_of(members)
    digest, first = bytes.fromhex(statement.sha256()), members[0]
    expected = first.share_P.copy()
    for other in members[1:]:
        pair = secure_sum._exchange(first.secret, other.envelope.mask_key)
        expected += secure_sum.pair_mask(pair, digest, (first.name, other.name), SIZE)
    assert np.array_equal(expected, secure_sum.masked(first.share_P, first.secret, first.name, statement))


def _long_keys() -> None:
    """The AES key behind a mask has 256 bits: the keystream of its first 4 bytes is another."""
    key = HKDF(hashes.SHA256(), 32, b"h" * 32, b"confide-sum-1\0a\0b").derive(b"s" * 32)
    expected = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(64))
    assert secure_sum.pair_mask(b"s" * 32, b"h" * 32, ("a", "b"), 16).astype("<u4").tobytes() == expected


PLANTED: Planted = {
    "salt-left-out": (
        "statement_sha256, info)",
        "bytes(32), info)",
        test_a_mask_changes_with_all_that_it_is_of,
    ),
    "names-left-out": (
        'b"\\0".join([NAME.encode(), *(name.encode() for name in names)])',
        "NAME.encode()",
        test_a_mask_changes_with_all_that_it_is_of,
    ),
    "names-run-together": (
        'b"\\0".join([NAME.encode(), *(name.encode() for name in names)])',
        'b"".join([NAME.encode(), *(name.encode() for name in names)])',
        test_a_mask_changes_with_all_that_it_is_of,
    ),
    "a-static-key": (
        "return X25519PrivateKey.generate().private_bytes_raw()",
        "return bytes(32)",
        _keys_differ,
    ),
    "both-add": (
        "masked_P + mask_P if institution == low else masked_P - mask_P",
        "masked_P + mask_P",
        test_the_masks_of_all_members_cancel,
    ),
    "one-neighbour-only": (
        "if envelope.institution == institution:",
        "if envelope.institution == institution or abs(int(institution[-2:]) - int(envelope.institution[-2:])) > 1:",
        _complete_graph,
    ),
    "seed-of-32-bits": (
        "derive(shared_secret)",
        "derive(shared_secret)[:4].ljust(32, b'.')",
        _long_keys,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_caught(monkeypatch, secure_sum, PLANTED[name])


def test_a_share_s_file_of_any_bytes_is_refused_as_a_message() -> None:
    with pytest.raises(MessageError):
        share_from_bytes(b"\xff\xfe")
