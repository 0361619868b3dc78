import math

import pytest

from confide.common.generation.text_metrics import WORST_LOSS, perplexity, written_metrics


def test_perplexity_counts_tokens_and_not_records() -> None:
    assert perplexity([(3 * math.log(2), 3), (math.log(32), 1)]) == pytest.approx(2 ** (8 / 4))
    assert perplexity([]) == 1.0
    assert math.isfinite(perplexity([(10 * WORST_LOSS, 1)]))


def test_the_reference_itself_is_best() -> None:
    texts = ["the long film was good", "was it very bad?"]
    assert written_metrics(texts, texts) == {
        name: pytest.approx(best)
        for name, best in {
            **{"bleu": 100, "chrf": 100},
            **{"rouge-1": 1, "rouge-2": 1, "rouge-l": 1, "exact match": 1},
        }.items()
    }


def test_rouge_counts_words_pairs_and_the_longest_common_sequence() -> None:
    metrics = written_metrics(["a b c d"], ["b a c d d"])
    assert metrics["rouge-1"] == pytest.approx(2 * 4 / (4 + 5))
    assert metrics["rouge-2"] == pytest.approx(2 * 1 / (3 + 4))
    assert metrics["rouge-l"] == pytest.approx(2 * 3 / (4 + 5))
    assert metrics["exact match"] == 0


def test_an_empty_text_has_metrics() -> None:
    assert written_metrics(["a b"], [""])["rouge-l"] == 0
    assert written_metrics([" "], [""])["exact match"] == 1
