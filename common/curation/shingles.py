"""Signatures by which nearly equal texts are found among very many.

A text is the set of its windows of five characters. A signature is the least hash in each of 64 parts of that set (one
permutation hashing; an empty part takes the value of the next one). The share of equal parts estimates the Jaccard
index of two sets with a deviation of at most 0.06. Texts that share one of 16 bands of four parts are compared.
scikit-learn has nothing of the kind, and libraries that hash window by window in Python take minutes for 100,000 texts.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

PARTS = 64
ALIKE = 0.8  # the least estimated Jaccard index of two texts that are nearly equal
_WINDOW, _BAND = 5, 4
_MOST_CHARS = 5_000  # of a text
_MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # shifts and factors of splitmix64
_POWERS = np.array([pow(0x100000001B3, place, 2**64) for place in range(_WINDOW)], dtype=np.uint64)
_STEP = np.uint32(0x85EBCA6B)
_AT_ONCE = 50_000  # pairs that are compared together

Signatures = NDArray[np.uint32]  # (texts, PARTS)


def normalised(text: str) -> str:
    """Return a text in lower case, with single blanks."""
    return " ".join(text.casefold().split())


def signature(text: str) -> NDArray[np.uint32]:
    """Return the signature of a text that is `normalised`, shape ``(PARTS,)``."""
    padded = text[:_MOST_CHARS].ljust(_WINDOW)
    codes = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    size = len(codes) - _WINDOW + 1
    hashes = np.zeros(size, dtype=np.uint64)
    for place in range(_WINDOW):
        hashes += codes[place : place + size] * _POWERS[place]
    for shift, factor in _MIXING:
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    hashes.sort()
    parts = (hashes >> np.uint64(58)).astype(np.int64)
    first = np.flatnonzero(np.diff(parts, prepend=-1))
    filled = parts[first]
    least = (hashes[first] >> np.uint64(26)).astype(np.uint32)  # the 32 bits behind the part's own six
    chosen = np.searchsorted(filled, np.arange(PARTS)) % len(filled)
    distance = (filled[chosen] - np.arange(PARTS)) % PARTS
    result: NDArray[np.uint32] = least[chosen] + distance.astype(np.uint32) * _STEP
    return result


def clusters(signatures: Signatures) -> NDArray[np.int64]:
    """Return a number for each text, shape ``(texts,)``: nearly equal texts share one, through others too."""
    count = len(signatures)
    edges = [_pairs_of_band(signatures, start) for start in range(0, PARTS, _BAND)]
    left, right = np.concatenate(edges, axis=1)
    graph = coo_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(count, count))
    found: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return found


def _pairs_of_band(signatures: Signatures, start: int) -> NDArray[np.int64]:
    """Return pairs of nearly equal texts that share a band, shape ``(2, pairs)``.

    Each text is compared with the first of its bucket and with its neighbour there, so that a bucket of n texts takes
    2n comparisons and not n squared.
    """
    key = np.ascontiguousarray(signatures[:, start : start + _BAND]).view(np.dtype((np.void, 4 * _BAND))).ravel()
    _, bucket = np.unique(key, return_inverse=True)
    order = np.argsort(bucket, kind="stable")
    begins = np.flatnonzero(np.diff(bucket[order], prepend=-1))
    sizes = np.diff(begins, append=len(order))
    heads = np.repeat(order[begins], sizes)
    same = bucket[order][1:] == bucket[order][:-1]
    near = np.stack([order[1:][same], order[:-1][same]])
    pairs = np.concatenate([np.stack([order, heads])[:, order != heads], near], axis=1)
    kept = [part[:, _alike(signatures, part)] for part in np.array_split(pairs, 1 + pairs.shape[1] // _AT_ONCE, axis=1)]
    return np.concatenate(kept, axis=1)


def _alike(signatures: Signatures, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    share = (signatures[pairs[0]] == signatures[pairs[1]]).mean(axis=1)
    alike: NDArray[np.bool_] = share >= ALIKE
    return alike
