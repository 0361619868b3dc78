"""The draw of institutions for a round. It is public: it saves charges and traffic, but amplifies no privacy."""

import hashlib
from collections.abc import Iterable

from confide.common.config.sections import FederationSection
from confide.common.errors import InputError


def draw(names: Iterable[str], federation: FederationSection, seed: int, number: int) -> set[str]:
    """Return the institutions that round ``number`` asks: the share `participation`, never fewer than the quorum.

    A round sorts the institutions by public hashes of their names and asks the first ones. So a resumed run asks the
    same ones again. If one has left, only the next in the line moves up.

    >>> federation = FederationSection(participation=0.5)
    >>> [sorted(draw("abcd", federation, 7, number)) for number in (1, 3, 1)]
    [['a', 'd'], ['c', 'd'], ['a', 'd']]
    """
    line = sorted(names, key=lambda name: hashlib.sha256(f"ask {seed} {number} {name}".encode()).digest())
    return set(line[: max(federation.min_clients, _share(federation, len(line)))])


def check_quorum(federation: FederationSection, count: int) -> None:
    """Check that rounds of ``count`` institutions can have a quorum; `InputError` before anything is written."""
    least = federation.min_clients
    if least > count:
        raise InputError(
            f"federation.min_clients = {least}, but there are {count} institutions; lower it or use more institutions"
        )
    if least > _share(federation, count):
        raise InputError(
            f"federation.participation = {federation.participation:g} of {count} institutions asks "
            f"{_share(federation, count)} in a round, fewer than federation.min_clients = {least}; raise the one or "
            "lower the other"
        )


def _share(federation: FederationSection, count: int) -> int:
    return max(1, round(federation.participation * count))
