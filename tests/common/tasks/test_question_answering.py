"""Question answering: windows, the answer's tokens, weights of windows, bad records, and what counts as right."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from support.byte_level import byte_level
from support.kinds import RECORDS, of_kind, task_of
from support.tiny_bert import tiny_tokenizer
from torch.nn.functional import cross_entropy

from confide.common.config.run import RunConfig
from confide.common.data.batches import Batch, collate
from confide.common.forms.answers import is_exact, overlap
from confide.common.model.adapter import get_state, set_state
from confide.common.model.evaluation import predict, require_readable
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy.gradients import per_example_gradients
from confide.common.tasks.question_answering import QuestionAnswering

KIND = "question-answering"
TASK = task_of(KIND)
CONTEXT = "the film was good, not short"


def _record(context: str, answer: str = "", question: str = "was it long?") -> dict[str, Any]:
    answers = {"text": [answer], "answer_start": [context.index(answer)]} if answer else {"text": [], "start": []}
    return {"context": context, "question": question, "answers": answers}


def _batch(model: WarmModel, examples: list[dict[str, Any]]) -> Batch:
    return collate(examples, 64, model.pads, model.device)


@pytest.fixture
def model(make_run: Callable[..., RunConfig]) -> WarmModel:
    model = warm_model(of_kind(make_run(), KIND))
    stream = np.random.default_rng(5)
    state = {name: stream.normal(0, 1, v.shape).astype(np.float32) for name, v in get_state(model.module).items()}
    set_state(model.module, state)
    return model


def test_the_tokens_of_question_context_and_answer_are_marked() -> None:
    [example] = TASK.examples(_record(CONTEXT, "not short"), tiny_tokenizer())
    tokens = tiny_tokenizer().convert_ids_to_tokens(example["input_ids"])
    assert [tokens[n] for n, part in enumerate(example["part"]) if part == 2] == ["[CLS]", *tokens[-8:-1]]
    assert tokens[-8:] == ["the", "film", "was", "good", ",", "not", "short", "[SEP]"]
    asked = [token for token, part in zip(tokens, example["part"], strict=True) if part == 1]
    assert asked == tiny_tokenizer().tokenize("was it long?")
    assert (example["starts"].index(1), example["ends"].index(1)) == (len(tokens) - 3, len(tokens) - 2)
    assert (sum(example["starts"]), sum(example["ends"])) == (1, 1)
    assert example["token_type_ids"] == [0] * (len(asked) + 2) + [1] * 8


@pytest.mark.parametrize("make", [tiny_tokenizer, byte_level], ids=["WordPiece", "byte-level BPE"])
@pytest.mark.parametrize("answer", ["Ann", "Ann (x)", "Rome", "(x) saw Rome", "saw", "Bo"])
def test_an_oracle_on_the_tokens_finds_the_answer(make: Any, answer: str) -> None:
    """In any window, whatever the tokenizer; in the others it finds that there is none."""
    record = _record(" ".join(["Eve is."] * 25 + ["Ann (x) saw Rome."] + ["Bo."] * 40), answer, "who?")
    examples = task_of(KIND, max_windows=64).examples(record, make())
    assert len(examples) > 2
    found = []
    for example in examples:
        start, end = example["starts"].index(1), example["ends"].index(1)
        found.append((1.0 if start else -1.0, example["first"][start], example["behind"][end]))
    assert 0 < sum(better > 0 for better, *_ in found) < len(found)
    assert all(record["context"][a:b].strip() == answer for better, a, b in found if better > 0)
    assert TASK.join(record, found).strip() == answer


@pytest.mark.parametrize(("answer", "counting"), [("good", 2), ("", 1)])
def test_windows_without_the_answer_count_once(answer: str, counting: int) -> None:
    """Else they would outvote the answer in the mean over the record; the mean is over those that count."""
    examples = TASK.examples(_record("long " * 20 + "good " + "long " * 150, answer), tiny_tokenizer())
    holds = [not example["starts"][0] for example in examples]
    assert holds == [answer == "good", False, False, False]
    weights = [example["weight"] for example in examples]
    assert weights == [4 / counting] * counting + [0.0] * (4 - counting)


def test_every_window_that_holds_the_answer_counts() -> None:
    words = [str(number) for number in range(10, 99)]
    examples = TASK.examples(_record(" ".join(words), "30"), tiny_tokenizer())
    holds = [not example["starts"][0] for example in examples]
    assert holds == [True, True, False, False]
    assert [example["weight"] for example in examples] == [4 / 3, 4 / 3, 4 / 3, 0.0]


def test_a_window_that_lacks_a_token_of_the_answer_does_not_hold_it() -> None:
    context = " ".join(str(number) for number in range(10, 99))
    first, second, *_ = TASK.examples(_record(context), tiny_tokenizer())
    last = first["behind"][-2]  # of the first window, before [SEP]
    begins = min(place for place, part in zip(second["first"][1:], second["part"][1:], strict=True) if part == 2)
    for start, end, holds in ((last - 2, last + 3, [False, True]), (begins - 3, begins + 2, [True, False])):
        windows = TASK.examples(_record(context, context[start:end]), tiny_tokenizer())
        assert [not window["starts"][0] for window in windows[:2]] == holds


def test_blanks_around_an_answer_belong_to_no_token() -> None:
    context = "  film was  "
    for answer, tokens in (("  film", ["film"]), ("was  ", ["was"]), (context, ["film", "was"])):
        [example] = TASK.examples(_record(context, answer), tiny_tokenizer())
        start, end = example["starts"].index(1), example["ends"].index(1)
        assert tiny_tokenizer().convert_ids_to_tokens(example["input_ids"][start : end + 1]) == tokens


def test_neighbouring_windows_share_a_quarter_of_their_tokens() -> None:
    """An answer at the border of one window is whole in the next."""
    examples = TASK.examples(_record(" ".join(map(str, range(10, 99)))), tiny_tokenizer())
    assert len(examples) == 4
    assert all(len(example["input_ids"]) == 64 for example in examples)
    places = [
        {first for first, part in zip(example["first"][1:], example["part"][1:], strict=True) if part == 2}
        for example in examples
    ]
    assert [len(left & right) > 5 for left, right in pairwise(places)] == [True] * 3


def test_a_long_question_leaves_room_for_the_context() -> None:
    for max_length, tokenizer in ((32, tiny_tokenizer()), (64, byte_level())):
        task = task_of(KIND, max_length=max_length)
        for example in task.examples(_record("the good film " * 30, "good", "is 1 good? " * 40), tokenizer):
            assert len(example["input_ids"]) <= max_length
            assert example["part"].count(2) > max_length // 2
            assert example["part"].count(1) >= max_length // 3 - 1


def test_the_loss_is_the_mean_of_two_cross_entropies_over_own_places(model: WarmModel) -> None:
    examples = [TASK.examples(record, model.tokenizer)[0] for record in RECORDS[KIND]]
    batch = _batch(model, [{**example, "weight": 1.0 + row} for row, example in enumerate(examples)])
    with torch.no_grad():
        losses = TASK.losses(model.module, batch)
        logits = model.module(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            token_type_ids=batch["token_type_ids"],
            question=batch["part"] == 1,
        )
        for row, example in enumerate(examples):
            own = [place for place, part in enumerate(example["part"]) if part == 2]
            both = [
                cross_entropy(logits[row, own, side], torch.tensor(own.index(example[name].index(1))))
                for side, name in enumerate(("starts", "ends"))
            ]
            torch.testing.assert_close(losses[row], sum(both) / 2 * (1 + row), rtol=1e-4, atol=1e-5)


def test_the_head_sees_each_token_beside_the_question(model: WarmModel) -> None:
    [example] = TASK.examples(RECORDS[KIND][0], model.tokenizer)
    batch = _batch(model, [example])
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.no_grad():
        states = model.module.encoder(**{name: batch[name] for name in names}).last_hidden_state[0]
        states = (states - model.module.centre) / model.module.spread
        mean = states[batch["part"][0] == 1].mean(dim=0)
        expected = torch.cat([states, states * mean], dim=1) @ model.module.head.weight.T + model.module.head.bias
        found = model.module(**{name: batch[name] for name in names}, question=batch["part"] == 1)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_found_is_the_best_passage_of_the_context(model: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """By trying each pair of places: of at most 30 tokens, not backwards, not in the question and not in padding."""
    record = _record("abcdefgh" * 5 + " " + CONTEXT)
    [example] = TASK.examples(record, model.tokenizer)
    batch = _batch(model, [example])
    for seed in range(20):
        logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 5, (1, 2, 64))).float()
        logits[0, 0, 15], logits[0, 1, 44 + seed % 2] = 40.0, 40.0  # 30 or 31 tokens
        logits[:, :, [part != 2 for part in example["part"]] + [True] * (64 - len(example["part"]))] = -torch.inf
        monkeypatch.setattr(QuestionAnswering, "_logits", lambda *_, logits=logits: logits)
        start, end = logits[0].tolist()
        places = [place for place, part in enumerate(example["part"]) if part == 2 and place]
        pairs = [(start[a] + end[b], a, b) for a in places for b in places if a <= b < a + 30]
        score, a, b = max(pairs)
        [(better, first, behind)] = TASK.predict(model.module, batch)
        assert (first, behind) == (example["first"][a], example["behind"][b])
        assert better == pytest.approx(score - start[0] - end[0], abs=1e-4)


def test_windows_are_joined_to_the_best_answer_or_to_none() -> None:
    record = _record(CONTEXT)
    assert TASK.join(record, [(0.5, 0, 3), (2.0, 4, 8), (1.0, 9, 12)]) == "film"
    assert TASK.join(record, [(-0.5, 0, 3), (0.0, 4, 8)]) == ""
    assert TASK.join(record, []) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"context": ""}, "context is empty"),
        ({"question": " "}, "question is empty"),
        ({"question": 3}, "question is a number"),
        ({"answers": None}, "answers is None, must be an object with the lists text and answer_start"),
        ({"answers": {"text": ["film"]}}, "must be an object with the lists text and answer_start"),
        ({"answers": {"text": "film", "answer_start": 4}}, "must be an object with the lists"),
        ({"answers": {"text": ["film"], "answer_start": []}}, "of one length"),
        ({"answers": {"text": ["film"], "answer_start": [5]}}, "answer 'film' does not stand at 5 in its context"),
        ({"answers": {"text": ["film"], "start": [-24]}}, "does not stand at -24"),
        ({"answers": {"text": ["film"], "start": [4.0]}}, "does not stand at 4.0"),
        ({"answers": {"text": ["film", " "], "start": [4, 3]}}, "an answer is empty"),
        ({"answers": {"text": [None], "start": [4]}}, "an answer is empty"),
    ],
)
def test_a_record_of_another_shape_is_named(change: dict[str, Any], words: str) -> None:
    assert TASK.check(_record(CONTEXT, "film")) is None
    problem = TASK.check({**_record(CONTEXT, "film"), **change})
    assert problem is not None
    assert words in problem


def test_lists_may_be_arrays_and_either_name_of_the_starts_is_read() -> None:
    arrays = {"text": np.array(["film"], dtype=object), "answer_start": np.array([4])}
    for answers in (arrays, {"text": ["film"], "start": [4]}, {"text": ["film"], "answer_start": [4]}):
        record = {**_record(CONTEXT), "answers": answers}
        assert TASK.check(record) is None
        assert TASK.truth(record) == ["film"]
        assert sum(TASK.examples(record, tiny_tokenizer())[0]["starts"][1:]) == 1


def test_a_cut_keeps_every_answer() -> None:
    """Else "no answer" would count as right where the answer stands beyond the cut."""
    record = {**_record(CONTEXT), "answers": {"text": ["film", "good"], "start": [4, 13]}}
    kept = {"text": ["film", "good"], "answer_start": [4, 13]}
    for sizes in ((17,), (16,), (16, 5), (3,)):
        short = record
        for size in sizes:
            short = TASK.cut(short, size)
        assert short == {"context": CONTEXT[: sizes[-1]], "question": "was it long?"[: sizes[-1]], "answers": kept}
        assert TASK.check(short) is None
        assert TASK.truth(short) == ["film", "good"]
        assert (TASK.score([TASK.truth(short)], [""]), TASK.rightness(TASK.truth(short), "")) == (0.0, 0.0)
        as_in_a_file = TASK.check({**short, "answers": kept})
        assert (as_in_a_file is None) == (sizes == (17,)), "an answer of a whole record stands in it"
    assert TASK.cut({**record, "answers": "film"}, 5)["answers"] == "film"


@pytest.mark.parametrize("start", [12, 24, -1, 13.0, None, "13"])
def test_a_cut_excuses_no_answer_that_stood_wrong_before(start: Any) -> None:
    record = {**_record(CONTEXT), "answers": {"text": ["good"], "answer_start": [start]}}
    assert TASK.check(record) == TASK.check(TASK.cut(record, 5))
    assert f"does not stand at {start!r}" in str(TASK.check(record))


def _unread() -> list[dict[str, Any]]:
    """Records whose first answer no window holds: behind the windows, behind the cut, and longer than a window."""
    far = _record("long " * 400 + "good film", "good")
    both = {**far, "answers": {"text": ["good", "long"], "answer_start": [2000, 0]}}
    return [far, TASK.cut(far, 1500), TASK.cut(far, 100), both, _record("long " * 400, "long " * 399)]


def test_of_several_answers_the_first_before_the_cut_is_learnt(model: WarmModel) -> None:
    both = {
        **_record("the film was good, the film", "film"),
        "answers": {"text": ["film"] * 2, "answer_start": [23, 4]},
    }
    once = {**both, "answers": {"text": ["film"], "answer_start": [4]}}
    assert TASK.examples(TASK.cut(both, 20), model.tokenizer) == TASK.examples(TASK.cut(once, 20), model.tokenizer)


@pytest.mark.parametrize("number", range(5))
def test_a_record_whose_answer_no_window_holds_teaches_nothing(model: WarmModel, number: int) -> None:
    record = _unread()[number]
    examples = TASK.examples(record, model.tokenizer)
    assert [example["weight"] for example in examples] == [0.0] * len(examples)
    model.wrapped.enable_hooks()
    gradients = per_example_gradients(model.wrapped, model.losses, _batch(model, examples))
    assert torch.count_nonzero(gradients) == 0
    assert "no window that is read holds its first answer" in str(TASK.why_no_example(record, model.tokenizer))
    bare = {**record, "answers": {"text": [], "answer_start": []}}
    assert predict(model, [record]) == predict(model, [bare])
    assert TASK.why_no_example(bare, model.tokenizer) is None, "without an answer the record teaches that there is none"
    require_readable(model, [record], "public.jsonl")


@pytest.mark.parametrize(
    ("answers", "found", "exact", "f1"),
    [
        (["The tall tower."], "tall  TOWER", True, 1.0),
        (["tall tower", "an old tower"], "the old tower", True, 1.0),
        (["tall tower"], "tower of Rome", False, 0.4),
        (["very very good"], "very good very good", False, 2 * 3 / 7),
        ([], "", True, 1.0),
        ([], "tower", False, 0.0),
        (["tower"], "", False, 0.0),
        (["the"], "a", True, 1.0),
    ],
)
def test_answers_are_compared_by_their_words(answers: list[str], found: str, exact: bool, f1: float) -> None:
    assert is_exact(answers, found) == exact
    assert overlap(answers, found) == pytest.approx(f1)


def test_questions_with_and_without_an_answer_are_counted_apart() -> None:
    metrics = TASK.metrics([["tower"], ["tall tower"], []], ["tower", "tower", "tower"])
    assert metrics["exact match"] == pytest.approx(1 / 3)
    assert metrics["f1"] == pytest.approx((1 + 2 / 3) / 3)
    assert (metrics["exact match/answer"], metrics["f1/no answer"]) == (0.5, 0.0)
    assert TASK.metrics([["tower"]], ["tower"]) == {"exact match": 1.0, "f1": 1.0}
