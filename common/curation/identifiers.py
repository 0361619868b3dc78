"""Personal identifiers that look out of place: a few forms that are known by their shape, with check digits if any.

It is a help for a person and no de-identification: names, addresses and most national numbers are not found.
"""

import re
from collections.abc import Callable, Iterator

from confide.common.curation.findings import Places
from confide.common.curation.form import Seen
from confide.common.findings import Finding


def _digits(text: str) -> list[int]:
    return [int(sign) for sign in text if sign.isdigit()]


def iban_is_whole(text: str) -> bool:
    """Return whether the check digits of an IBAN are right (ISO 13616: the rest by 97 is 1).

    >>> iban_is_whole("DE89 3704 0044 0532 0130 00"), iban_is_whole("DE88 3704 0044 0532 0130 00")
    (True, False)
    """
    plain = re.sub(r"\s", "", text)
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def card_is_whole(text: str) -> bool:
    """Return whether the check digit of a card's number is right (Luhn).

    >>> card_is_whole("4111 1111 1111 1111"), card_is_whole("4111 1111 1111 1112")
    (True, False)
    """
    digits = _digits(text)[::-1]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _nhs_is_whole(text: str) -> bool:
    digits = _digits(text)
    rest = 11 - sum(weight * digit for weight, digit in zip(range(10, 1, -1), digits, strict=False)) % 11
    return rest % 11 == digits[9] and rest != 10


def _nir_is_whole(text: str) -> bool:
    number = "".join(map(str, _digits(text)))
    return 97 - int(number[:13]) % 97 == int(number[13:])


def _dni_is_whole(text: str) -> bool:
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(text[:8]) % 23] == text[-1]


# Decree of the Italian Ministry of Finance, 23 December 1976: values at odd places, of 0 to 9 and A to J, then K to Z.
_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _fiscal_code_is_whole(text: str) -> bool:
    values = [int(sign) if sign.isdigit() else ord(sign) - ord("A") for sign in text]
    total = sum(_ODD[value] for value in values[:15:2]) + sum(values[1:15:2])
    return total % 26 == values[15]


def _any(text: str) -> bool:
    return True


# What is found is taken out of the text, so that no digits count twice.
_FORMS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "e-mail address": (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"), _any),
    "IBAN": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), iban_is_whole),
    "card number": (re.compile(r"\b\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}\b"), card_is_whole),
    "French social security number": (
        re.compile(r"\b[12] ?\d\d ?\d\d ?\d\d ?\d{3} ?\d{3} ?\d\d\b"),
        _nir_is_whole,
    ),
    "Italian fiscal code": (re.compile(r"\b[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]\b"), _fiscal_code_is_whole),
    "Spanish identity number": (re.compile(r"\b\d{8}-?[A-Z]\b"), _dni_is_whole),
    "US social security number": (re.compile(r"\b(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}\b"), _any),
    "NHS number": (re.compile(r"\b\d{3} \d{3} \d{4}\b"), _nhs_is_whole),
    "telephone number": (
        re.compile(r"(?<![\w.])(?:\+\d{1,3}[ /-]?(?:\(0\)[ ]?)?|\(?0\d{1,4}\)?[ /-])\d(?:[ /-]?\d){5,11}(?![\w.])"),
        _any,
    ),
}


def identifiers_in(text: str) -> set[str]:
    """Return the kinds of identifiers that a text holds.

    >>> sorted(identifiers_in("write to a.b@example.org or call +49 30 1234567"))
    ['e-mail address', 'telephone number']
    """
    found = set[str]()
    for name, (shape, is_whole) in _FORMS.items():
        if any(is_whole(match[0]) for match in shape.finditer(text)):
            found.add(name)
            text = shape.sub(" ", text)
    return found


class Identifiers:
    """Identifiers, each by its places."""

    def __init__(self) -> None:
        self.places = {name: Places() for name in _FORMS}

    def see(self, seen: Seen) -> None:
        """Take one record."""
        if "@" in seen.text or any(sign in seen.text for sign in "0123456789"):
            for name in identifiers_in(seen.text):
                self.places[name].add(seen.number)

    def findings(self) -> Iterator[Finding]:
        """Yield one finding for each kind that is there, or one that there is none."""
        there = [name for name, places in self.places.items() if places.count]
        for name in there:
            yield Finding(f"identifiers: {name}", "warning", f"{self.places[name]}; does it belong there?")
        if not there:
            yield Finding("identifiers", "ok", "none of the forms that are known here; names were not looked for")
