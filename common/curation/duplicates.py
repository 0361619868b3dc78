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
        self.train, self.test = _Texts(), _Texts()

    def see(self, seen: Seen) -> None:
        """Take one record."""
        self.train.add(seen)

    def see_test(self, seen: Seen) -> None:
        """Take one record of the test file."""
        self.test.add(seen)

    def findings(self) -> Iterator[Finding]:
        """Yield findings about exact doubles, labels that contradict each other, near doubles, and the test file."""
        if not self.train.numbers:
            return
        own, labels, exact = self.train.arrays()
        groups = _groups(exact)
        yield _found("exact doubles", groups, own, _COUNTED)
        torn = [group for group in groups if len(set(labels[group].tolist())) > 1]
        yield _found("doubles with other labels", torn, own, "look at each and decide for one label")
        signatures = np.frombuffer(b"".join(self.train.signatures + self.test.signatures), dtype=np.uint32)
        near = clusters(signatures.reshape(-1, 64))
        mine, theirs = near[: len(own)], near[len(own) :]
        _, first = np.unique(exact, return_index=True)
        first.sort()
        nearly = [first[group] for group in _groups(mine[first])]
        yield _found("near doubles", nearly, own, "which share four fifths or more of their windows of five characters")
        if self.test.numbers:
            yield self._overlap(own, np.isin(mine, theirs), np.isin(exact, self.test.arrays()[2]))

    def _overlap(self, own: NDArray[np.int64], near: NDArray[np.bool_], exact: NDArray[np.bool_]) -> Finding:
        """Return the finding about texts that are in the test file too."""
        both = places_of(own[exact].tolist()), places_of(own[near & ~exact].tolist())
        if not any(places.count for places in both):
            return Finding("test file", "ok", f"none of its {len(self.test.numbers)} texts is here")
        exactly, nearly = both
        text = f"{_told(exactly)} here are in the test file too, and nearly so {_told(nearly)}"
        return Finding("test file", "warning", f"{text}; its scores say too much: take them out of one of the two")


class _Texts:
    def __init__(self) -> None:
        self.numbers, self.labels, self.hashes = array("q"), array("q"), array("Q")
        self.signatures: list[bytes] = []

    def add(self, seen: Seen) -> None:
        text = normalised(seen.text)
        if not text:
            return
        self.numbers.append(seen.number)
        self.labels.append(_hash("\0".join(sorted(seen.labels))) >> 1)
        self.hashes.append(_hash(text))
        self.signatures.append(signature(text).tobytes())

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
        return np.array(self.numbers), np.array(self.labels), np.array(self.hashes, dtype=np.uint64)


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
