"""Token classification: words and tokens, windows, spans, bad records, entities as conlleval counts them."""

from types import SimpleNamespace
from typing import Any

import pytest
from support.byte_level import byte_level
from support.kinds import RECORDS, task_of
from support.tiny_bert import tiny_tokenizer

from confide.common.errors import InputError
from confide.common.forms.entities import entities
from confide.common.forms.labels import NamedCode

TASK, SPANS = task_of("token-classification"), task_of("token-classification, spans")
WORDS = ["the", "film", "was", "xyz", "good"]
TAGS = ["O", "B-thing", "O", "B-quality", "I-quality"]


def test_the_first_token_of_each_word_carries_its_tag() -> None:
    [example] = TASK.examples({"tokens": WORDS, "tags": TAGS}, tiny_tokenizer())
    tokens = tiny_tokenizer().convert_ids_to_tokens(example["input_ids"])
    assert tokens == ["[CLS]", "the", "film", "was", "x", "##y", "##z", "good", "[SEP]"]
    assert example["word"] == [0, 1, 2, 3, 4, 0, 0, 5, 0]
    assert example["tag"] == [0, 0, 3, 0, 1, 0, 0, 2, 0]


def test_a_long_text_is_cut_into_windows_and_no_word_is_lost_or_counted_twice() -> None:
    words = ["abcdefg", *WORDS] * 12
    record = {"tokens": words, "tags": ["O", *TAGS] * 12}
    windows = TASK.examples(record, tiny_tokenizer())
    assert len(windows) > 1
    assert all(len(window["input_ids"]) <= 64 for window in windows)
    assert [word for window in windows for word in window["word"] if word] == list(range(1, len(words) + 1))
    tags = [tag for window in windows for tag, word in zip(window["tag"], window["word"], strict=True) if word]
    assert tags == [["O", "B-quality", "I-quality", "B-thing", "I-thing"].index(tag) for tag in record["tags"]]
    [first] = task_of("token-classification", max_windows=1).examples(record, tiny_tokenizer())
    assert first == windows[0]


def test_words_beyond_the_last_window_are_outside() -> None:
    record = {"tokens": WORDS, "tags": TAGS}
    assert TASK.join(record, [{1: "B-thing"}, {3: "O"}]) == ["B-thing", "O", "O", "O", "O"]
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
        ({"tags": [*TAGS, "O"]}, "tags (of 6) must be a list with one tag for each of the 5 tokens"),
        ({"tags": None}, "tags (no list)"),
        ({"tags": ["O", "O", "O", "O", "B-place"]}, "tag 'B-place' is not one of"),
        ({"tags": ["O", "O", "O", "O", ["B"]]}, "tag ['B'] is not one of"),
        ({"tags": ["O", "O", "O", "O", None]}, "tag None is not one of"),
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


def test_an_institution_s_own_numbers_are_renamed() -> None:
    """A tag that is a number stands for a whole tag; "O" is outside whatever a type is called."""
    names = {"0": "O", "1": "B-quality", "O": "quality"}
    assert TASK.translate({"tokens": ["a", "b", "c"], "tags": [1, 0, "O"]}, names)["tags"] == ["B-quality", "O", "O"]
    own = {"text": "a b", "entities": [{"start": 0, "end": 1, "label": 7.0}]}
    assert SPANS.translate(own, {"7": "quality"})["entities"][0]["label"] == "quality"


def test_a_type_that_is_a_number_in_the_file_is_found() -> None:
    task = task_of("token-classification, spans", labels=("0", "1"))
    record = {"text": "a b", "entities": [{"start": 0, "end": 1, "label": 1.0}]}
    assert task.check(record) is None
    assert task.truth(record) == ["B-1", "O"]
    problem = task.check({"text": "a b", "entities": [{"start": 0, "end": 1, "label": 2}]})
    assert problem is not None
    assert "entity label 2 is not one of" in problem


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


def test_a_span_is_shown_for_each_entity_that_the_metrics_count() -> None:
    """A stray "I-" begins one. What is shown is a record of the training file's form, with the same entities."""
    record = {"text": "Gabe: Ibuprofen 400 mg, oral"}
    tags = ["O", "O", "B-thing", "I-quality", "I-quality", "O", "I-thing"]
    found = SPANS.shown(record, tags)
    assert found == [
        {"start": 6, "end": 15, "label": "thing", "text": "Ibuprofen"},
        {"start": 16, "end": 22, "label": "quality", "text": "400 mg"},
        {"start": 24, "end": 28, "label": "thing", "text": "oral"},
    ]
    learned = {**record, "entities": found}
    assert SPANS.check(learned) is None
    assert list(entities(SPANS.truth(learned))) == list(entities(tags))
    assert SPANS.shown(record, ["O"] * 7) == []
    assert TASK.shown({"tokens": WORDS}, TAGS) == TAGS


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


ODD = ['He said "no." Ann (from Rome)', "don't ask Ann", "Rene\u0301 saw \u2600\ufe0f Rome", "a\u200bb \u200b Ann"]


@pytest.mark.parametrize("make", [tiny_tokenizer, byte_level], ids=["WordPiece", "byte-level BPE"])
@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("form", ["tokens", "spans"])
def test_an_oracle_on_the_tokens_is_right_about_the_words(make: Any, text: str, form: str) -> None:
    """One token may hold several words, and a word may have no token: neither may shift the tags of the others."""
    task = task_of("token-classification" if form == "tokens" else "token-classification, spans")
    words = task.from_text(text).get("tokens", text.split())
    if form == "tokens":
        record = {"tokens": words, "tags": ["B-thing" if word in ("Ann", "Rome") else "O" for word in words]}
    else:
        spans = [(text.find(name), name) for name in ("Ann", "Rome") if name in text]
        record = {"text": text, "entities": [{"start": s, "end": s + len(n), "label": "thing"} for s, n in spans]}
    outputs = [
        {word: task.tags[tag] for word, tag in zip(window["word"], window["tag"], strict=True) if word}
        for window in task.examples(record, make())
    ]
    assert task.join(record, outputs) == task.truth(record)
    assert task.rightness(task.truth(record), task.join(record, outputs)) == 1.0


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(InputError, match="needs a fast tokenizer"):
        TASK.examples({"tokens": ["a"], "tags": ["O"]}, SimpleNamespace(is_fast=False))


def test_a_cut_takes_tags_and_entities_with_it() -> None:
    assert TASK.cut({"tokens": WORDS, "tags": TAGS, "group": "x" * 99}, 10) == {
        "tokens": WORDS[:2],
        "tags": TAGS[:2],
        "group": "x" * 99,
    }
    record = {"text": "the film was good", "entities": [{"start": 4, "end": 8, "label": "thing"}] * 2}
    assert SPANS.cut(record, 8)["entities"] == record["entities"]
    short = SPANS.cut(record, 7)
    assert (short["text"], short["entities"]) == ("the fil", [])
    assert SPANS.check(short) is None
    most = 64 * 4
    long = TASK.cut({"tokens": ["a"] * 10**6, "tags": ["O"] * 10**6}, 10**9)
    assert len(long["tokens"]) == len(long["tags"]) == most


def test_of_spans_that_overlap_one_counts() -> None:
    """Work for a record grows with its text and not with the product of spans and words."""
    spans = [{"start": 0, "end": 17, "label": "thing"}] * 3
    assert SPANS.truth({"text": "the film was good", "entities": spans}) == ["B-thing", *["I-thing"] * 3]


@pytest.mark.parametrize("labels", [["B-person"], ["O"], ["a", "a"], [" "]])
def test_labels_are_types_and_no_tags(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="must be distinct types"):
        task_of("token-classification", labels=labels)


def test_codes_of_a_class_label_are_their_names() -> None:
    tags = [NamedCode(0, "O"), NamedCode(1, "B-thing")]
    record = TASK.translate({"tokens": ["a", "b"], "tags": tags}, {})
    assert TASK.check(record) is None
    assert TASK.truth(record) == ["O", "B-thing"]
