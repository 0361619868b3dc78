"""Guarantees: only approved keys count as members, each once, at least as many as were approved; all answer one run."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.planting import Planted, require_caught
from support.sums import Holder, agreed, holder, holders

from confide.client.privacy import sum_checks
from confide.client.privacy.account import Account, AnswerKey, Reservation
from confide.common.errors import PolicyError
from confide.common.protocol.secure_sum import SignedShare, Statement
from confide.common.protocol.signatures import Identity

ALL = holders(7)
MINE = ALL[0]


def _require(members: list[SignedShare], min_members: int = 5, own: SignedShare | None = None) -> None:
    """As a hostile server shows them: in the order of their names unless a test says otherwise."""
    sum_checks.require_statement(Statement(tuple(members)), own or MINE.signed(), agreed(ALL, min_members))


def _signed(count: int = 7) -> list[SignedShare]:
    return [one.signed() for one in ALL[:count]]


def test_a_good_statement_is_taken() -> None:
    _require(_signed(7))
    _require(_signed(5))


def _server_in_the_middle() -> list[SignedShare]:
    stranger = Identity(b"x" * 32)
    text = replace(ALL[6].envelope, mask_key=holder("x").envelope.mask_key).text()
    return [*_signed(6), SignedShare(text, stranger.sign(text))]


def _made_up_member() -> list[SignedShare]:
    return [*_signed(6), holder("hospital-99").signed()]


def _listed_name_with_another_key() -> list[SignedShare]:
    other = Holder(Identity(b"y" * 32), ALL[6].envelope, ALL[6].secret, ALL[6].share_P)
    return [*_signed(6), other.signed()]


HOSTILE: dict[str, tuple[Callable[[], list[SignedShare]], str]] = {
    "own-key-in-another-s-envelope": (_server_in_the_middle, "is not signed by the key that was approved"),
    "made-up-member": (_made_up_member, "'hospital-99' is in the sum, but not in the run that was approved"),
    "listed-name-with-another-key": (_listed_name_with_another_key, "is not signed by the key"),
    "one-institution-twice": (lambda: [*_signed(), ALL[6].signed()], "in the order of their names, each once"),
    "not-in-order": (lambda: [*_signed(5), ALL[6].signed(), ALL[5].signed()], "in the order of their names"),
    "too-few": (lambda: _signed(4), "the sum has 4 members.*federation.min_clients = 5"),
    "without-me": (lambda: _signed()[1:], "without this institution's share"),
    "another-envelope-of-mine": (
        lambda: [MINE.signed(mask_key=holder("x").envelope.mask_key), *_signed()[1:]],
        "with another envelope of it",
    ),
    "of-another-round": (lambda: [*_signed(6), ALL[6].signed(round=2)], "of another round"),
    "of-another-study": (lambda: [*_signed(6), ALL[6].signed(study="other")], "of another study"),
    "of-another-lineage": (lambda: [*_signed(6), ALL[6].signed(lineage="cd" * 16)], "of another lineage"),
    "of-another-run": (lambda: [*_signed(6), ALL[6].signed(run_sha256="9" * 64)], "of another run_sha256"),
    "of-another-base": (lambda: [*_signed(6), ALL[6].signed(base_sha256="9" * 64)], "of another base_sha256"),
    "of-another-adapter": (lambda: [*_signed(6), ALL[6].signed(input_sha256="9" * 64)], "of another input_sha256"),
    "of-a-rehearsal": (lambda: [*_signed(6), ALL[6].signed(what="rehearsal")], "of another what"),
    "a-copied-mask-key": (
        lambda: [*_signed(6), ALL[6].signed(mask_key=ALL[1].envelope.mask_key)],
        "two members of the sum have the same mask key",
    ),
    "a-point-of-small-order": (lambda: [*_signed(6), ALL[6].signed(mask_key="00" * 32)], "not a key of X25519"),
    "an-envelope-that-is-none": (lambda: [*_signed(6), SignedShare("[]", "0" * 128)], "not a JSON object"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_statement_is_refused(name: str) -> None:
    make, why = HOSTILE[name]
    with pytest.raises(PolicyError, match=why):
        _require(make())


def _account(*reservations: Reservation) -> Account:
    account = Account()
    for reservation in reservations:
        account.reservations[reservation.number] = reservation
        account.answers.setdefault(reservation.key, []).append(reservation)
    return account


def _reservation(number: int, round_number: int, **changes: object) -> Reservation:
    key = AnswerKey("reviews", "ab" * 16, "update", round_number)
    made = Reservation(number, f"{number:064x}", key, "3" * 64, "1" * 64, sealed_sha256="5" * 64)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_round_that_later_ones_have_passed_is_over() -> None:
    account, asked = _account(_reservation(1, 1), _reservation(2, 2, released="6" * 64)), ("3" * 64, "1" * 64)
    with pytest.raises(PolicyError, match="round 1 is over: a share of round 2 has left"):
        sum_checks.require_open(account, AnswerKey("reviews", "ab" * 16, "update", 1), asked)
    for other in (("9" * 64, "1" * 64), ("3" * 64, "9" * 64)):
        with pytest.raises(PolicyError, match="a share of it has left for another adapter or run"):
            sum_checks.require_open(account, AnswerKey("reviews", "ab" * 16, "update", 2), other)
    for key in (("reviews", "ab" * 16, 2), ("reviews", "ab" * 16, 3), ("reviews", "cd" * 16, 1), ("x", "ab" * 16, 1)):
        sum_checks.require_open(account, AnswerKey(key[0], key[1], "update", key[2]), asked)


def test_the_share_of_an_ask_is_the_sealed_one_of_its_run_and_adapter() -> None:
    key, asked = AnswerKey("reviews", "ab" * 16, "update", 1), ("3" * 64, "1" * 64)
    mine = _reservation(1, 1)
    assert sum_checks.sealed_share(_account(mine), key, asked) == mine
    for account in (
        _account(),
        _account(replace(mine, sealed_sha256=None)),
        _account(replace(mine, input_sha256="9" * 64)),
        _account(replace(mine, run_sha256="9" * 64)),
    ):
        with pytest.raises(PolicyError, match="there is no sealed share"):
            sum_checks.sealed_share(account, key, asked)
    other = _reservation(2, 1, input_sha256="9" * 64, released="6" * 64)
    with pytest.raises(PolicyError, match="another share of it has left"):
        sum_checks.sealed_share(_account(mine, other), key, asked)


def _refused(name: str) -> Callable[[], None]:
    return lambda: test_a_hostile_statement_is_refused(name)


PLANTED: Planted = {
    "key-from-the-envelope": (
        "if not signed_by(key, member.text, member.signature):",
        "if False:",
        _refused("own-key-in-another-s-envelope"),
    ),
    "names-not-looked-up": (
        "if key is None:",
        "key = key or '0' * 64\n    if False:",
        _refused("made-up-member"),
    ),
    "a-set-instead-of-an-order": ("later <= earlier", "False", _refused("one-institution-twice")),
    "twice-in-a-row": ("later <= earlier", "later < earlier", _refused("one-institution-twice")),
    "one-too-few": (
        "if len(names) < agreed.min_members:",
        "if len(names) < agreed.min_members - 1:",
        _refused("too-few"),
    ),
    "own-name-is-enough": ("if own not in statement.members:", "if False:", _refused("another-envelope-of-mine")),
    "same-mask-key": (
        "if len({envelope.mask_key for envelope in envelopes}) < len(envelopes):",
        "if False:",
        _refused("a-copied-mask-key"),
    ),
    "passed-rounds-open": (
        "if of.round > key.round:",
        "if False:",
        test_a_round_that_later_ones_have_passed_is_over,
    ),
    "charged-for-nothing": (
        "if of == key and (reservation.input_sha256, reservation.run_sha256) != asked:",
        "if False:",
        test_a_round_that_later_ones_have_passed_is_over,
    ),
    "another-share-of-the-round": (
        "if any(item.released for item in of_round if item is not found[0]):",
        "if False:",
        test_the_share_of_an_ask_is_the_sealed_one_of_its_run_and_adapter,
    ),
    **{
        f"{field}-not-compared": (f'"{field}", ' if field != "what" else ', "what"', "", _refused(f"of-{name}"))
        for field, name in {
            "study": "another-study",
            "lineage": "another-lineage",
            "round": "another-round",
            "run_sha256": "another-run",
            "base_sha256": "another-base",
            "input_sha256": "another-adapter",
            "what": "a-rehearsal",
        }.items()
    },
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_caught(monkeypatch, sum_checks, PLANTED[name])
