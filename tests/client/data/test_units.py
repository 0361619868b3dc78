import datetime
import functools
import hmac
import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import guarantees
from support.kinds import task_of
from support.sites import SECRET, make_records, make_table

from confide.client.data.dataset_claims import People
from confide.client.data.units import make_units, names_of, split_records, unit_key
from confide.common.model.warm_model import WarmModel

Record = dict[str, Any]

# What a file can hold and a task cannot use; JSON escapes reach lone surrogates, Parquet dates and bytes.
HOSTILE: dict[str, Record] = {
    "no text": {"text": None},
    "empty text": {"text": ""},
    "lone surrogate": {"text": "bad \ud800 text"},
    "number": {"text": 5},
    "bytes": {"text": b"good"},
    "date": {"text": datetime.date(2026, 1, 1)},
    "list": {"text": ["good", "bad"]},
    "label that the study does not have": {"label": "neutral"},
    "label that is a list": {"label": ["positive"]},
    "label that is a date": {"label": datetime.date(2026, 1, 1)},
    "label with a lone surrogate": {"label": "\ud800"},
}
NO_GROUP = {"none": None, "empty": "", "blank": "  ", "nan": float("nan")}
DEEP = functools.reduce(lambda inner, _: [inner], range(100_000), list[Any]())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_a_record_on_which_the_tokenizer_raises_counts_as_absent(model: WarmModel) -> None:
    guarantees.check_a_record_on_which_the_tokenizer_raises_counts_as_absent(model)


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("groups", [None, 2])
def test_a_record_that_cannot_be_used_counts_as_absent(model: WarmModel, change: Record, groups: int | None) -> None:
    records = make_records(5, groups)
    assert make_table(model, [*records, {**records[0], **change}]) == make_table(model, records)


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_record_that_cannot_be_used_does_not_stop_the_split(change: Record) -> None:
    records = make_records(20)
    train, validation = split_records([*records, {**records[0], **change}], SECRET, 0.5)
    assert len(train) + len(validation) in (20, 21)


def test_train_or_validation_is_decided_by_the_unit_s_key() -> None:
    guarantees.check_train_or_validation_is_decided_by_the_unit_s_key()


def test_all_records_of_a_unit_fall_on_one_side() -> None:
    train, validation = split_records(make_records(60, groups=20), SECRET, 0.5)
    assert train
    assert validation
    assert not {r["group"] for r in train} & {r["group"] for r in validation}


def test_the_split_is_a_secret_of_the_institution() -> None:
    records = make_records(60)
    assert split_records(records, b"one", 0.5) != split_records(records, b"another", 0.5)
    assert split_records(records, SECRET, 0.0) == (records, [])


def test_a_unit_s_key_is_keyed_and_made_of_content_only() -> None:
    first, second = make_records(2)
    assert unit_key(first, SECRET) == unit_key(dict(reversed(first.items())), SECRET)
    assert len({unit_key(first, SECRET), unit_key(second, SECRET), unit_key(first, b"another")}) == 3


def test_a_group_s_key_is_its_name_whatever_the_record() -> None:
    first, second = make_records(2, groups=1)
    assert unit_key(first, SECRET) == unit_key(second, SECRET)


def test_a_group_keeps_its_key_when_a_file_writes_its_number_otherwise() -> None:
    """A patient who is 17 in one line and 17.0 in another would be two units."""
    keys = {unit_key({"group": group}, SECRET) for group in (17, 17.0, "17")}
    assert len(keys) == 1


def test_a_group_that_is_an_object_keeps_its_key_however_a_file_writes_it() -> None:
    same: list[list[object]] = [
        [{"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}, {"a": 1.0, "b": {"c": 2, "d": 3.0}}],
        [[17], [17.0]],
        [[[17, "x"]], [(17.0, "x")]],
    ]
    keys = [{unit_key({"group": group}, SECRET) for group in groups} for groups in same]
    assert [len(group) for group in keys] == [1, 1, 1]
    different = ([17, 18], [18, 17], [17.5], ["17"], {"a": 17}, {"b": 17}, [True], [None])
    assert len({unit_key({"group": group}, SECRET) for group in different}) == len(different)


def _otherwise(value: Any) -> Any:
    """The same value as another program may write it."""
    if isinstance(value, dict):
        return {name: _otherwise(value[name]) for name in reversed(value)}
    if isinstance(value, list):
        return [_otherwise(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and int(float(value)) == value:
        return float(value)
    return value


@settings(max_examples=100)
@given(VALUES)
@example("")
@example(" ")
def test_a_group_of_any_shape_has_one_key_and_stops_nothing(group: Any) -> None:
    assert unit_key({"group": group}, SECRET) == unit_key({"group": _otherwise(group)}, SECRET)
    nobody = group is None or (isinstance(group, str) and not group.strip())
    assert (names_of({"text": "good", "group": group}, task_of("text-classification"), SECRET) is None) == nobody


@pytest.mark.parametrize("record", [{"text": DEEP}, {"text": DEEP, "group": "p"}, {"text": "good", "group": DEEP}])
def test_a_record_that_is_nested_too_deep_is_nobody_s(record: Record) -> None:
    """The reader refuses such a line, but not by the same limit everywhere."""
    assert names_of(record, task_of("text-classification"), SECRET) is None


NOTE = "She was seen on Monday, has a cough since two weeks and no fever, and asks whether she may go back to work. "
TEXT = {"text": NOTE}
LONG = "".join(chr(0x4E00 + number) for number in range(100))  # a script without blanks
TOKENS = re.findall(r"\w+|[^\w\s]", NOTE)
SAME_NOTE: dict[str, tuple[str, Record]] = {
    "text": ("text-classification", TEXT),
    "source": ("seq2seq", {"source": NOTE}),
    "prompt": ("causal-lm, completion", {"prompt": NOTE.strip()}),
    "tokens": ("token-classification", {"tokens": TOKENS}),
    "a turn": ("causal-lm", {"messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": NOTE}]}),
    "two turns": ("causal-lm", {"messages": [{"role": "user", "content": text} for text in ("Hello.", NOTE)]}),
    "context": ("question-answering", {"context": NOTE, "question": "What does she ask?"}),
    "pair": ("text-classification, pair", {"text": NOTE, "text_pair": "another"}),
    "marked": ("relation-classification", {"text": NOTE.replace("cough", "<e1>cough</e1>")}),
    "preferred": ("preference", {"prompt": NOTE, "chosen": "Yes.", "rejected": "No."}),
}


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("other", SAME_NOTE)
@pytest.mark.parametrize("one", SAME_NOTE)
def test_a_person_is_known_under_the_columns_of_any_kind(one: str, other: str, group: bool) -> None:
    (kind, first), (another, second) = SAME_NOTE[one], SAME_NOTE[other]
    people = People(":memory:")
    known = names_of(first, task_of(kind), SECRET)
    again = names_of(second | ({"group": "Anna"} if group else {}), task_of(another), SECRET)
    assert known
    assert again
    assert people.claim_all("one", {known})
    assert not people.claim_all("two", {again})
    assert people.claim_all("one", {again})


def _talk(*turns: str) -> Record:
    """A conversation; a turn is written "role: content"."""
    return {"messages": [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]}


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("text-classification", TEXT, {"text": NOTE[:-3]}),
        ("question-answering", {"context": NOTE, "question": "Why?"}, {"context": NOTE[5:], "question": "Why?"}),
        ("ranking", {"query": "inn", "candidates": ["a", "b"]}, {"query": "inn", "candidates": ["a", "c"]}),
        ("ranking", {"query": "inn", "candidates": [NOTE, "b"]}, {"query": "inn", "candidates": [NOTE, "c"]}),
        ("scoring, pair", {"text": "fever", "text_pair": NOTE}, {"text": "cough", "text_pair": NOTE}),
        ("scoring, pair", {"text": "fever", "text_pair": NOTE}, {"text": "fever", "text_pair": "-"}),
        ("causal-lm", _talk("user: Hi", "assistant: a"), _talk("user: Hi", "assistant: b")),
        ("causal-lm", _talk(f"system: {NOTE}", "user: Hi"), _talk(f"user: {NOTE}")),
        (
            "preference",
            {"prompt": "A", "chosen": "x", "rejected": NOTE},
            {"prompt": "A", "chosen": "y", "rejected": NOTE},
        ),
    ],
)
def test_what_many_may_say_makes_nobody_the_same_person(kind: str, one: Record, other: Record) -> None:
    """A question, a greeting, an item, a candidate and an instruction stand beside the texts of many people."""
    people = People(":memory:")
    for number, record in enumerate((one, other)):
        names = names_of(record, task_of(kind), SECRET)
        assert names
        assert people.claim_all(f"dataset {number}", {names})


@pytest.mark.parametrize(("length", "known"), [(100, True), (99, False)])
def test_a_text_without_blanks_is_long_by_its_letters(length: int, known: bool) -> None:
    people, context = People(":memory:"), {"context": LONG[:length], "question": "?"}
    for record, kind, joined in (
        (context, "question-answering", True),
        ({"text": LONG[:length]}, "scoring", not known),
    ):
        names = names_of(record, task_of(kind), SECRET)
        assert names
        assert people.claim_all(kind, {names}) == joined


def test_the_key_of_a_plain_group_is_the_one_that_it_always_was() -> None:
    """Another key would part people from their earlier claims, and move them between train and validation."""
    texts = {17: "17", 17.5: "17.5", "17": "17", " 17 ": " 17 ", "17.0": "17.0", True: "True", b"17": "b'17'"}
    for group, text in [*texts.items(), (17.0, "17"), (float("inf"), "inf"), (datetime.date(2026, 1, 1), "2026-01-01")]:
        assert unit_key({"group": group}, SECRET) == hmac.digest(SECRET, json.dumps(text).encode(), "sha256")


def test_a_record_is_a_unit_of_its_own_even_if_another_is_equal(model: WarmModel) -> None:
    table = make_table(model, make_records(3) * 2)
    assert table.num_units == 6
    assert {len(unit) for unit in table.units} == {1}


def test_a_group_is_cut_to_its_limit_in_the_same_way_wherever_its_records_stand(model: WarmModel) -> None:
    records = make_records(12, groups=2)
    tables = [make_table(model, order, max_records_per_group=4) for order in (records, records[::-1])]
    assert tables[0] == tables[1]
    assert [len(unit) for unit in tables[0].units] == [4, 4]


@pytest.mark.parametrize("group", NO_GROUP.values(), ids=NO_GROUP)
def test_a_record_without_a_group_key_is_dropped(model: WarmModel, group: object) -> None:
    records = make_records(4, groups=2)
    assert make_table(model, [*records, {**records[0], "group": group}]) == make_table(model, records)


@pytest.mark.parametrize("group", [*NO_GROUP.values(), "\ud800", b"17", ["a"], {"b": float("nan"), "a": None}])
def test_a_strange_group_key_stops_nothing(model: WarmModel, group: object) -> None:
    records = [*make_records(4, groups=2), {**make_records(1)[0], "group": group}]
    assert make_table(model, records).num_units in (2, 3)
    split_records(records, SECRET, 0.5)


def test_the_order_of_units_says_nothing_about_the_file(model: WarmModel) -> None:
    records = make_records(20)
    shuffled = [records[7 * place % 20] for place in range(20)]
    assert make_table(model, shuffled) == make_table(model, records)
    assert make_units(records, model.task, model.tokenizer, b"another") != make_table(model, records)


def test_adding_a_unit_changes_no_other(model: WarmModel) -> None:
    records = make_records(9, groups=3)
    fewer = [record for record in records if record["group"] != "patient 1"]
    units = make_table(model, records).units
    assert [unit for unit in units if unit in make_table(model, fewer).units] == make_table(model, fewer).units


def test_no_records_give_no_units(model: WarmModel) -> None:
    assert make_table(model, []).num_units == 0
