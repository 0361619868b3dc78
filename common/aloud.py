"""Hashes as people read them to each other, by telephone or in a letter."""

import re

HASH_DIGITS = 20  # of a run's hash: 80 bits. A hostile server can try runs until 32 bits agree, within minutes.


def grouped(digits: str) -> str:
    """Return digits in groups of four.

    >>> grouped("7e18f7373")
    '7e18-f737-3'
    """
    return "-".join(digits[index : index + 4] for index in range(0, len(digits), 4))


def hash_start(sha256: str) -> str:
    """Return the digits of a run's hash that people compare.

    >>> hash_start("0123456789abcdef" * 4)
    '0123-4567-89ab-cdef-0123'
    """
    return grouped(sha256[:HASH_DIGITS])


def digits_of(typed: str) -> str:
    """Return the digits of a hash or fingerprint, however it was typed.

    >>> digits_of(" 7E18:f7 37-31")
    '7e18f73731'
    """
    return re.sub(r"[\s:\u2010-\u2015-]", "", typed).lower()  # a mail programme may replace our dashes by others
