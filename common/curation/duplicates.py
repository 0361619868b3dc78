"""Texts that are there twice or nearly so, and texts that a test file has too."""

import hashlib
from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from confide.common.curation.findings import Places, places_of
from confide.common.curation.form import Seen
from confide.common.curation.shingles import clusters, normalised, signature
from confide.common.findings import Finding, FindingState

_GROUPS = 5  # of doubles that are shown
_COUNTED = "each counts as a record of its own: remove all but one"


class Duplicates:
    """Exact doubles (but for case and blanks), near ones, and those of them that differ in their labels.

    Of a text it holds 280 bytes: a hash and a signature.
    """

    def __init__(self) -> None:
        self.texts = _Texts()

    def see(self, seen: Seen) -> None:
        """Take one record."""
        self.texts.add(seen, seen.text)

    def findings(self) -> Iterator[Finding]:
        """Yield findings about exact doubles, labels that contradict each other, and near doubles."""
        if not self.texts.numbers:
            return
        own, labels, exact = self.texts.arrays()
        groups = _groups(exact)
        yield _found("exact doubles", groups, own, _COUNTED)
        torn = [group for group in groups if len(set(labels[group].tolist())) > 1]
        yield _found("doubles with other labels", torn, own, "look at each and decide for one label")
        near = _clusters(self.texts.signatures)
        _, first = np.unique(exact, return_index=True)
        first.sort()
        nearly = [first[group] for group in _groups(near[first])]
        yield _found("near doubles", nearly, own, "which share four fifths or more of their windows of five characters")


class Overlap:
    """Records whose inputs a public test file has too. Answers are left out, for a test file may lack them."""

    def __init__(self) -> None:
        self.train, self.test = _Texts(), _Texts()

    def see(self, seen: Seen) -> None:
        """Take one record."""
        self.train.add(seen, seen.given)

    def see_test(self, seen: Seen) -> None:
        """Take one record of the test file."""
        self.test.add(seen, seen.given)

    def findings(self) -> Iterator[Finding]:
        """Yield one finding; none where no record here has a text."""
        if not self.test.numbers:
            yield Finding("test file", "warning", "no text of it can be read, so nothing was compared; mend it")
        if not self.train.numbers or not self.test.numbers:
            return
        own, _, exact = self.train.arrays()
        near = _clusters(self.train.signatures + self.test.signatures)
        nearly, same = np.isin(near[: len(own)], near[len(own) :]), np.isin(exact, self.test.arrays()[2])
        both = places_of(own[same].tolist()), places_of(own[nearly & ~same].tolist())
        if not any(places.count for places in both):
            yield Finding("test file", "ok", f"none of its {len(self.test.numbers)} texts is here")
            return
        text = f"{_told(both[0])} here are in the test file too, and nearly so {_told(both[1])}"
        yield Finding("test file", "warning", f"{text}; its scores say too much: take them out of one of the two")


class _Texts:
    def __init__(self) -> None:
        self.numbers, self.labels, self.hashes = array("q"), array("q"), array("Q")
        self.signatures: list[bytes] = []

    def add(self, seen: Seen, text: str) -> None:
        text = normalised(text)
        if not text:
            return
        self.numbers.append(seen.number)
        self.labels.append(_hash("\0".join(sorted(seen.labels))) >> 1)
        self.hashes.append(_hash(text))
        self.signatures.append(signature(text).tobytes())

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
        return np.array(self.numbers), np.array(self.labels), np.array(self.hashes, dtype=np.uint64)


def _clusters(signatures: list[bytes]) -> NDArray[np.int64]:
    """Return for each text the number of its cluster of near doubles."""
    return clusters(np.frombuffer(b"".join(signatures), dtype=np.uint32).reshape(-1, 64))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _groups(keys: NDArray[np.uint64] | NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the places of equal keys, for each key that is there twice or more; large groups first."""
    order = np.argsort(keys, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    return sorted((part for part in parts if len(part) > 1), key=lambda part: (-len(part), part[0]))


def _found(subject: str, groups: list[NDArray[np.int64]], numbers: NDArray[np.int64], meaning: str) -> Finding:
    if not groups:
        return Finding(subject, "ok", "none")
    state: FindingState = "warning"
    listed = "; ".join(str(places_of(numbers[group].tolist())) for group in groups[:_GROUPS])
    extra = sum(map(len, groups)) - len(groups)
    more = f"; {len(groups) - _GROUPS} more texts" if len(groups) > _GROUPS else ""
    texts = f"{len(groups)} text{'s'[: len(groups) != 1]} in {extra + len(groups)} records"
    return Finding(subject, state, f"{texts}, {meaning}: {listed}{more}")


def _told(places: Places) -> str:
    return str(places) if places.count else "none"
