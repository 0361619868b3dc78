"""Signatures of texts: their equal parts estimate how much the texts share, and nearly equal ones find each other."""

import numpy as np

from confide.common.curation.shingles import PARTS, clusters, signature


def _text(seed: int, words: int = 80) -> list[str]:
    draw = np.random.Generator(np.random.PCG64(seed))
    return [f"w{draw.integers(10**6)}" for _ in range(words)]


def _windows(text: str) -> set[str]:
    return {text[place : place + 5] for place in range(len(text) - 4)}


def test_equal_parts_of_signatures_estimate_the_jaccard_index() -> None:
    errors = []
    for seed in range(60):
        words = _text(seed)
        other = words[: seed + 10] + _text(seed + 1000)[seed + 10 :]
        one, two = " ".join(words), " ".join(other)
        true = len(_windows(one) & _windows(two)) / len(_windows(one) | _windows(two))
        errors.append(float((signature(one) == signature(two)).mean()) - true)
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 1.5 * 0.5 / PARTS**0.5


def test_nearly_equal_texts_share_a_cluster_and_others_do_not() -> None:
    texts = [" ".join(_text(seed)) for seed in range(300)]
    near = [f"{text}, again" for text in texts[:50]]
    found = clusters(np.stack([signature(text) for text in [*texts, *near]]))
    assert (found[:50] == found[300:]).all()
    assert len(set(found[:300].tolist())) == 300


def test_short_and_empty_texts_have_signatures() -> None:
    texts = ["", "a", "ab", "abcd", "abcde", "\ud800", "\U0001f600"]
    assert len({signature(text).tobytes() for text in texts}) == len(texts)


def test_very_many_equal_texts_are_compared_with_few() -> None:
    """A bucket of n texts takes 2n comparisons in each band; n squared would fill the memory."""
    one = np.tile(signature("the same text again and again"), (200_000, 1))
    assert set(clusters(one).tolist()) == {0}
