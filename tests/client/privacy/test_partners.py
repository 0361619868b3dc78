"""The institutions of a run are the partners that a person compared, and this institution itself."""

import pytest

from confide.client.privacy.decision import partner_problems
from confide.common.protocol.enrolment import partner_fingerprint

OWN, KEYS = "a" * 64, {"luke": "b" * 64, "mark": "c" * 64, "mary": "a" * 64}
PARTNERS = {name: partner_fingerprint(key) for name, key in KEYS.items() if name != "mary"}


def test_partners_with_the_fingerprints_of_their_keys_are_no_problem() -> None:
    assert partner_problems(KEYS, "mary", OWN, PARTNERS) == []
    typed = {name: fingerprint.replace("-", " ").upper() for name, fingerprint in PARTNERS.items()}
    assert partner_problems(KEYS, "mary", OWN, {**typed, "another": "of another study"}) == []


@pytest.mark.parametrize(
    ("keys", "partners", "words"),
    [
        (KEYS, {"luke": PARTNERS["luke"]}, "'mark' is not in [partners]"),
        (KEYS, {**PARTNERS, "mark": PARTNERS["luke"]}, "partners.mark = "),
        (KEYS, {**PARTNERS, "mark": ""}, "partners.mark = ''"),
        ({**KEYS, "mark": "d" * 64}, PARTNERS, partner_fingerprint("d" * 64)),
        ({**KEYS, "mary": "d" * 64}, PARTNERS, "'mary' is listed with the key dddd"),
        ({"luke": KEYS["luke"], "mark": KEYS["mark"]}, PARTNERS, "'mary' is not listed"),
        ({**KEYS, "sybil": "e" * 64}, PARTNERS, "'sybil' is not in [partners]"),
        ({**KEYS, "sybil": OWN}, PARTNERS, "'sybil' is not in [partners]"),
    ],
)
def test_each_other_list_has_one_problem_that_names_the_remedy(
    keys: dict[str, str], partners: dict[str, str], words: str
) -> None:
    [problem] = partner_problems(keys, "mary", OWN, partners)
    assert words in problem
    assert "by telephone" in problem or OWN in problem


def test_every_problem_is_given_even_without_any_key() -> None:
    assert len(partner_problems(KEYS, "mary", "f" * 64, {})) == 3
    assert len(partner_problems({}, "mary", OWN, PARTNERS)) == 1


def test_a_partner_s_fingerprint_is_not_that_of_a_request() -> None:
    """Neither can be read out for the other: the first is of a sum's member, the second of an enrolment."""
    from confide.common.protocol.enrolment import JoinRequest

    assert partner_fingerprint(OWN) != JoinRequest("mary", "", OWN).fingerprint()
