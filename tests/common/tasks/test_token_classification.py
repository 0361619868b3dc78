"""Token classification: words and tokens, windows, spans, bad records, entities as conlleval counts them."""

from typing import Any

import pytest
from support.kinds import RECORDS, task_of
from support.tiny_bert import tiny_tokenizer

from confide.common.tasks.entities import entities

TASK, SPANS = task_of("token-classification"), task_of("token-classification, spans")
WORDS = ["the", "film", "was", "xyz", "good"]
TAGS = ["O", "B-thing", "O", "B-quality", "I-quality"]


def test_the_first_token_of_each_word_carries_its_tag() -> None:
    [example] = TASK.examples({"tokens": WORDS, "tags": TAGS}, tiny_tokenizer())
    tokens = tiny_tokenizer().convert_ids_to_tokens(example["input_ids"])
    assert tokens == ["[CLS]", "the", "film", "was", "x", "##y", "##z", "good", "[SEP]"]
    assert example["first"] == [0, 1, 1, 1, 1, 0, 0, 1, 0]
    assert [tag for tag, first in zip(example["tag"], example["first"], strict=True) if first] == [0, 3, 0, 1, 2]


def test_a_long_text_is_cut_into_windows_and_no_word_is_lost_or_counted_twice() -> None:
    words = ["abcdefg", *WORDS] * 12
    record = {"tokens": words, "tags": ["O", *TAGS] * 12}
    windows = TASK.examples(record, tiny_tokenizer())
    assert len(windows) > 1
    assert all(len(window["input_ids"]) <= 64 for window in windows)
    assert sum(sum(window["first"]) for window in windows) == len(words)
    tags = [tag for window in windows for tag, first in zip(window["tag"], window["first"], strict=True) if first]
    assert tags == [["O", "B-quality", "I-quality", "B-thing", "I-thing"].index(tag) for tag in record["tags"]]
    [first] = task_of("token-classification", max_windows=1).examples(record, tiny_tokenizer())
    assert first == windows[0]


def test_words_beyond_the_last_window_are_outside() -> None:
    record = {"tokens": WORDS, "tags": TAGS}
    assert TASK.join(record, [["B-thing"], ["O"]]) == ["B-thing", "O", "O", "O", "O"]
    assert TASK.join(record, []) == ["O"] * 5


def test_spans_are_the_tags_of_the_words_that_they_touch() -> None:
    assert [SPANS.truth(record) for record in RECORDS["token-classification, spans"]] == [
        ["O", "B-thing", "O", "O"],
        ["B-quality", "I-quality", "O", "O", "O"],
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": []}, "must be a list of words"),
        ({"tokens": "the film"}, "must be a list of words"),
        ({"tokens": ["a", " ", "b", "c", "d"]}, "a token is empty"),
        ({"tokens": ["a", 3, "b", "c", "d"]}, "a token is a number"),
        ({"tags": ["O"]}, "tags (of 1) must be a list with one tag for each of the 5 tokens"),
        ({"tags": None}, "tags (no list)"),
        ({"tags": ["O", "O", "O", "O", "B-place"]}, "tag 'B-place' is not one of"),
        ({"tags": ["O", "O", "O", "O", ["B"]]}, "tag ['B'] is not one of"),
    ],
)
def test_a_record_of_another_shape_is_named(change: dict[str, Any], words: str) -> None:
    problem = TASK.check({"tokens": WORDS, "tags": TAGS, **change})
    assert problem is not None
    assert words in problem


@pytest.mark.parametrize(
    ("entity", "words"),
    [
        ("thing", "must be an object with start, end and label"),
        ({"start": 0, "end": 3}, "must be an object with start, end and label"),
        ({"start": 0, "end": 3, "label": "place"}, "entity label 'place' is not one of"),
        ({"start": 0, "end": 18, "label": "thing"}, "must be whole numbers within the 17 characters"),
        ({"start": 3, "end": 3, "label": "thing"}, "must be whole numbers within"),
        ({"start": 0.0, "end": 3, "label": "thing"}, "must be whole numbers within"),
    ],
)
def test_a_span_outside_its_text_is_named(entity: Any, words: str) -> None:
    problem = SPANS.check({"text": "the film was good", "entities": [entity]})
    assert problem is not None
    assert words in problem


def test_an_institution_s_own_types_are_renamed() -> None:
    assert TASK.translate({"tokens": ["a"], "tags": ["B-Q"]}, {"Q": "quality"})["tags"] == ["B-quality"]
    own = {"text": "a b", "entities": [{"start": 0, "end": 1, "label": "Q"}]}
    assert SPANS.translate(own, {"Q": "quality"})["entities"][0]["label"] == "quality"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["B-a", "I-a", "O", "B-a"], [("a", 0, 1), ("a", 3, 3)]),
        (["I-a", "I-a", "I-b"], [("a", 0, 1), ("b", 2, 2)]),
        (["B-a", "B-a"], [("a", 0, 0), ("a", 1, 1)]),
        (["O", "O"], []),
    ],
)
def test_entities_are_read_as_conlleval_reads_them(tags: list[str], expected: list[tuple[str, int, int]]) -> None:
    assert list(entities(tags)) == expected


def test_f1_counts_whole_entities() -> None:
    """Of three entities two are found, one of them with another end; of two that are claimed one is right."""
    truth = [["B-thing", "I-thing", "O", "B-quality"], ["B-thing"]]
    found = [["B-thing", "O", "O", "B-quality"], ["O"]]
    metrics = TASK.metrics(truth, found)
    assert (metrics["precision"], metrics["recall"]) == (0.5, pytest.approx(1 / 3))
    assert metrics["f1"] == pytest.approx(0.4)
    assert (metrics["f1/quality"], metrics["f1/thing"]) == (1.0, 0.0)
    assert TASK.metrics([["O"]], [["O"]])["f1"] == 0.0
    assert TASK.rightness(truth[0], found[0]) == 0.5
