"""Relation classification: marks, the parts of a text, the window around the names, what the headline counts."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score
from support.byte_level import byte_level
from support.kinds import RECORDS, of_kind, task_of
from support.tiny_bert import tiny_tokenizer

from confide.common.config.run import RunConfig
from confide.common.data.batches import collate
from confide.common.errors import InputError
from confide.common.model.warm_model import warm_model

KIND = "relation-classification"
TASK = task_of(KIND)


def _example(text: str) -> dict[str, Any]:
    [example] = TASK.examples({"text": text}, tiny_tokenizer())
    return example


def _part(example: dict[str, Any], number: int) -> list[str]:
    tokens = tiny_tokenizer().convert_ids_to_tokens(example["input_ids"])
    return [token for token, part in zip(tokens, example["part"], strict=True) if part == number]


def test_names_stand_between_signs_and_are_parts() -> None:
    example = _example("the <e1>film</e1> was <e2>very good</e2>")
    tokens = tiny_tokenizer().convert_ids_to_tokens(example["input_ids"])
    assert tokens == ["[CLS]", "the", "$", "film", "$", "was", "#", "very", "good", "#", "[SEP]"]
    assert [_part(example, number) for number in (1, 2, 3)] == [["film"], ["very", "good"], ["was"]]


def test_the_second_name_may_come_first_and_nothing_need_stand_between() -> None:
    example = _example("<e2>good</e2> <e1>film</e1>")
    tokens = tiny_tokenizer().convert_ids_to_tokens(example["input_ids"])
    assert tokens == ["[CLS]", "#", "good", "#", "$", "film", "$", "[SEP]"]
    assert [_part(example, number) for number in (1, 2, 3)] == [["film"], ["good"], []]


@pytest.mark.parametrize("text", ["<e1>Ann</e1> saw <e2>Rome</e2>", "x. <e2> Rome.</e2>, <e1>Ann (x) </e1> is"])
def test_signs_and_blanks_belong_to_no_part_whatever_the_tokenizer(text: str) -> None:
    [example] = TASK.examples({"text": text}, byte_level())
    tokens = byte_level().convert_ids_to_tokens(example["input_ids"])
    pieces = re.split("<.*?>", text)
    names = pieces[1::2] if text.index("<e1>") < text.index("<e2>") else pieces[3::-2]
    for number, piece in enumerate([*names, pieces[2]], start=1):
        own = [token for token, part in zip(tokens, example["part"], strict=True) if part == number]
        assert "".join(own).replace("Ġ", " ").strip() == piece.strip()


def test_of_a_long_text_the_tokens_around_the_names_are_read() -> None:
    names = "<e1>film</e1> and <e2>the short</e2>"
    long, short = (_example("long " * before + names + " not" * after) for before, after in ((200, 300), (2, 3)))
    assert len(long["input_ids"]) == 64
    assert [_part(long, number) for number in (1, 2, 3)] == [["film"], ["the", "short"], ["and"]]
    assert [_part(short, number) for number in (1, 2, 3)] == [["film"], ["the", "short"], ["and"]]
    begins = long["part"].index(1)
    assert abs(begins - (64 - long["part"].index(2))) <= 4, "the names stand in the middle"
    for before, after in ((0, 99), (99, 0)):
        example = _example("long " * before + names + " not" * after)
        assert len(example["input_ids"]) == 64
        assert [_part(example, number) for number in (1, 2)] == [["film"], ["the", "short"]]


def test_names_too_far_apart_are_read_from_the_first_on() -> None:
    example = _example("long " * 30 + "<e2>good</e2>" + " was" * 80 + " <e1>film</e1>")
    tokens = tiny_tokenizer().convert_ids_to_tokens(example["input_ids"])
    assert tokens[:4] == ["[CLS]", "#", "good", "#"]
    assert [len(_part(example, number)) for number in (1, 2, 3)] == [0, 1, 59]


def test_a_cut_keeps_the_names() -> None:
    names = "<e1>film</e1> and <e2>the short</e2>"
    cut = TASK.cut({"text": "a" * 500 + names + "b" * 500, "label": "none"}, 60)
    assert len(cut["text"]) == 60
    assert names in cut["text"]
    assert TASK.check(cut) is None
    assert TASK.cut({"text": "a" * 500 + names + "b", "label": "none"}, len(names))["text"] == names
    assert TASK.cut({"text": names, "label": "none"}, 60)["text"] == names
    assert TASK.cut({"text": "a" * 70, "label": "none"}, 60)["text"] == "a" * 60


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" ", "text is empty"),
        ("Ann lives in Rome", "text has <e1> 0 times, must have it once; mark two names"),
        ("<e1>Ann lives in <e2>Rome</e2>", "text has </e1> 0 times"),
        ("<e1>a</e1> <e1>b</e1> <e2>c</e2>", "text has <e1> 2 times"),
        ("<e1>a <e2>b</e2></e1>", "overlap, or close before they open"),
        ("<e1>a<e2>b</e1>c</e2>", "overlap, or close before they open"),
        ("</e1>a<e1> <e2>c</e2>", "overlap, or close before they open"),
        ("<e1>a</e1> <e2>\n</e2>", "the name between <e2> and </e2> is empty"),
    ],
)
def test_a_text_without_two_names_is_named(text: str, words: str) -> None:
    problem = TASK.check({"text": text, "label": "none"})
    assert problem is not None
    assert words in problem
    with pytest.raises(InputError, match=r"text|name"):
        TASK.from_text(text)


def test_a_label_outside_the_list_is_named() -> None:
    problem = TASK.check({**RECORDS[KIND][0], "label": "cause"})
    assert problem is not None
    assert "label 'cause' is not one of" in problem


def test_the_head_is_a_linear_layer_on_the_means_of_the_parts(make_run: Callable[..., RunConfig]) -> None:
    model = warm_model(of_kind(make_run(), KIND))
    examples = [TASK.examples(record, model.tokenizer)[0] for record in RECORDS[KIND]]
    batch = collate(examples, 24, model.pads, model.device)
    with torch.no_grad():
        states = model.module.encoder(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
        states = (states - model.module.centre) / model.module.spread
        for row, part in enumerate(batch["part"]):
            means = torch.cat(
                [states[row][part == number].mean(dim=0) for number in (1, 2, 3) if (part == number).any()]
            )
            weight = model.module.head.weight.view(3, 3, -1)[
                [number - 1 for number in (1, 2, 3) if (part == number).any()]
            ]
            expected = weight.transpose(0, 1).flatten(1) @ means
            torch.testing.assert_close(TASK.logits(model.module, batch)[row], expected, rtol=1e-4, atol=1e-5)


def test_the_headline_leaves_the_other_label_out() -> None:
    one, two, none = TASK.labels
    truths, found = [one, one, two, none, none, none], [one, two, two, none, one, none]
    metrics = TASK.metrics(truths, found)
    assert metrics["f1"] == pytest.approx(f1_score(truths, found, labels=[one, two], average="macro"))
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["f1/none"] == pytest.approx(0.8)
    every = task_of(KIND, other=None).metrics(truths, found)
    assert every["f1"] == pytest.approx(f1_score(truths, found, average="macro"))


@pytest.mark.parametrize("changes", [{"other": "nothing"}, {"labels": ["a", "none"]}])
def test_other_is_one_label_of_three_or_more(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"task\.other = .* must be one of task\.labels, with two labels or more"):
        task_of(KIND, **changes)
