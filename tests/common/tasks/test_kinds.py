"""The promises that every kind of task keeps: columns, losses of their own rows only, metrics, rightness."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from support.kinds import LINES, RECORDS, SETTINGS, line_record, of_kind, right_answer, task_of, writes

from confide.client.data.units import gather_units, make_units, names_of
from confide.client.training import validation
from confide.client.training.trial import tried_shapes
from confide.common.config.run import RunConfig
from confide.common.data.batches import collate, length, padded_length
from confide.common.errors import InputError
from confide.common.forms.labels import NamedCode
from confide.common.model.adapter import get_state, reset, set_state
from confide.common.model.evaluation import answer, evaluate, predict, samples
from confide.common.model.warm_model import PREFIX, WarmModel, warm_model
from confide.common.privacy.gradients import per_example_gradients
from confide.common.tasks import Task

KINDS = list(SETTINGS)


@pytest.fixture(scope="module", params=KINDS)  # all tests of a kind run together, on one warm model
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def task(kind: str) -> Task:
    return task_of(kind)


@pytest.fixture
def model(kind: str, make_run: Callable[..., RunConfig]) -> WarmModel:
    """The model of a kind with the weights that a run starts from."""
    run = of_kind(make_run(), kind)
    model = warm_model(run)
    reset(model.module, run.study.seed)
    model.module.zero_grad()
    model.wrapped.enable_hooks()
    return model


def _hostile(model: WarmModel) -> None:
    """Write weights of a norm that a server may send."""
    state = get_state(model.module)
    stream = np.random.default_rng(7)
    set_state(model.module, {name: stream.normal(0, 3, v.shape).astype(np.float32) for name, v in state.items()})


def test_a_made_up_record_is_good_and_fills_the_longest_example(task: Task, model: WarmModel) -> None:
    for number in range(6):
        record = task.made_up(3, number)
        assert task.check(record) is None
        assert task.made_up(3, number) == record != task.made_up(4, number)
        assert record.keys() == set(task.fields())
        lengths = [length(example) for example in task.examples(record, model.tokenizer)]  # of a source or a target
        assert lengths[:-1] == [task.max_length] * (len(lengths) - 1)
        assert lengths[0] == task.max_length
        assert len(lengths) == getattr(task, "max_candidates", getattr(task, "max_windows", 1)), (
            "a rehearsal takes as long as the longest record"
        )
    assert length(task.examples(task.made_up(3, 0, 5), model.tokenizer)[0]) < task.max_length


def test_a_sample_of_a_kind_is_three_texts(task: Task, kind: str, model: WarmModel) -> None:
    records = [RECORDS[kind][0], *(task.made_up(0, number, 9) for number in range(24))]
    found = samples(model, get_state(model.module), records)
    assert len(found) == 10
    assert [sample.keys() for sample in found] == [{"input", "answer", "right"}] * 10
    assert all(isinstance(text, str) for sample in found for text in sample.values())
    assert found[0]["right"] == task.reference(RECORDS[kind][0]) or not writes(kind)
    assert not kind.endswith("spans") or '"start": 4, "end": 8, "label": "thing"' in found[0]["right"]
    first = RECORDS[kind][0][task.inputs()[0]]
    assert found[0]["input"].endswith("film") or not isinstance(first, str) or first in found[0]["input"]
    assert samples(model, get_state(model.module), []) == []


def test_each_column_has_one_value_for_each_token(task: Task, kind: str, model: WarmModel) -> None:
    for record in [*RECORDS[kind], task.made_up(0, 1)]:
        for example in task.examples(record, model.tokenizer):
            lists = {name: value for name, value in example.items() if isinstance(value, list)}
            assert lists.keys() == {"input_ids", *task.columns()}
            assert kind in ("seq2seq", "preference") or {len(value) for value in lists.values()} == {length(example)}
            assert length(example) <= task.max_length


def test_a_record_without_its_answer_can_be_predicted(task: Task, kind: str, model: WarmModel) -> None:
    bare = [{name: record[name] for name in task.inputs()} for record in RECORDS[kind]]
    expected = answer(model, RECORDS[kind])
    assert answer(model, bare) == expected == json.loads(json.dumps(expected))
    lines = [line_record(kind, line) for line in LINES[kind]]
    with suppress(InputError):  # a kind may refuse an empty line
        lines.append(task.from_line(""))
    assert len(predict(model, lines)) == len(lines) > 1


def test_gradients_are_those_of_one_example_at_a_time(task: Task, kind: str, model: WarmModel) -> None:
    """Under large weights as well, and with rows of other lengths beside an example."""
    examples = [*task.examples(RECORDS[kind][0], model.tokenizer), *task.examples(RECORDS[kind][1], model.tokenizer)]
    padded = padded_length(max(map(length, examples)))
    model.wrapped.enable_hooks()
    for _ in range(2):
        together = per_example_gradients(
            model.wrapped, model.losses, collate(examples, padded, model.pads, model.device)
        )
        for row, example in enumerate(examples):
            model.module.zero_grad()
            model.wrapped.disable_hooks()
            task.losses(model.module, collate([example], padded, model.pads, model.device)).sum().backward()
            alone = torch.cat([p.grad.flatten() for p in model.module.parameters() if p.requires_grad])
            model.wrapped.enable_hooks()
            torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-5 * float(alone.abs().max()))
        _hostile(model)


def test_rows_of_every_length_may_share_a_micro_batch(kind: str, model: WarmModel) -> None:
    """A probe without a gradient would make the trial compute all rows of its length alone."""
    shapes = tried_shapes(model, 512)
    alone = [padded for padded, of in shapes.by_length.items() if max(of) == 1]
    # The tiny tokenizer spells the names of roles, so that sixteen tokens of a conversation hold no answer.
    assert alone == ([16] if kind == "causal-lm" else [])


def test_a_loss_is_that_of_the_example_alone(task: Task, kind: str, model: WarmModel) -> None:
    examples = [*task.examples(RECORDS[kind][0], model.tokenizer), *task.examples(RECORDS[kind][1], model.tokenizer)]
    padded = padded_length(max(map(length, examples)))
    with torch.no_grad():
        together = task.losses(model.module, collate(examples, padded, model.pads, model.device))
        alone = [task.losses(model.module, collate([one], padded, model.pads, model.device)) for one in examples]
    assert together.shape == (len(examples),)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_padding_changes_no_loss(task: Task, kind: str, model: WarmModel) -> None:
    examples = task.examples(RECORDS[kind][0], model.tokenizer)
    with torch.no_grad():
        losses = [task.losses(model.module, collate(examples, n, model.pads, model.device)) for n in (16, 32)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)


def test_metrics_hold_the_headline_and_are_best_for_the_truth(task: Task, kind: str) -> None:
    if writes(kind):
        pytest.skip("its metrics are of losses: test_written.py")
    truths = [task.truth(record) for record in RECORDS[kind]]
    right = [right_answer(truth, kind) for truth in truths]
    metrics = task.metrics(truths, right)
    assert metrics[task.headline] == pytest.approx(1.0)
    assert all(isinstance(value, float) for value in metrics.values())
    assert [task.rightness(*pair) for pair in zip(truths, right, strict=True)] == pytest.approx([1.0, 1.0])
    assert all(0 <= task.rightness(truth, other) <= 1 for truth in truths for other in right)


def test_scores_are_of_the_headline(task: Task, kind: str, model: WarmModel) -> None:
    scores = evaluate(model, get_state(model.module), {"public": RECORDS[kind]})
    assert scores.metric == task.headline
    assert np.isfinite(scores.mean)


@pytest.mark.parametrize("weights", [np.nan, np.inf, 1e30])
def test_a_unit_weighs_1_in_the_counts_under_any_weights(kind: str, model: WarmModel, weights: float) -> None:
    """The gate stops such weights; the count does not rely on it."""
    state = {name: np.full_like(value, weights) for name, value in get_state(model.module).items()}
    before = get_state(model.module)
    set_state(model.module, state)
    cells = validation.count_cells(model, [RECORDS[kind], RECORDS[kind][:1]])
    set_state(model.module, before)
    assert cells.sum() == pytest.approx(2)
    assert cells.min() >= 0


def test_a_record_that_the_task_cannot_use_contributes_nothing(task: Task, kind: str, model: WarmModel) -> None:
    good = RECORDS[kind][0]
    odd = (None, {}, object(), [None], 1j)
    broken = [{**good, name: value} for name in task.fields() for value in odd]
    assert [record for record in broken if not task.check(record)] == []
    [unit] = gather_units([*broken, good], task, model.tokenizer, bytes(32))
    assert [record for record, _ in unit] == [good]


def _replaced(value: Any, hostile: Any) -> Iterator[Any]:
    """Yield a value with each of its parts replaced, itself first."""
    yield hostile
    if isinstance(value, dict | list):
        for place in list(value) if isinstance(value, dict) else range(len(value)):
            for part in _replaced(value[place], hostile):
                changed = value.copy()
                changed[place] = part
                yield changed


def test_no_fault_of_a_record_quotes_it_whole(kind: str) -> None:
    """A value may be a whole file: the line that names its fault must stay one that people read."""
    many = ["none", *(f"label {number}" for number in range(500))]
    tasks = [task_of(kind), *([task_of(kind, labels=many)] if "labels" in SETTINGS[kind] else [])]
    long = "x y" * 40_000
    for task in tasks:
        for hostile in (long, [long], {long: long}, NamedCode(1, long), 10**4000, [[long]], [{"role": long}]):
            found = [
                fault
                for name, value in RECORDS[kind][0].items()
                for part in _replaced(value, hostile)
                if (fault := task.check({**RECORDS[kind][0], name: part}))
            ]
            assert [fault for fault in found if len(fault) > 300] == []


def test_a_record_with_another_answer_is_the_same_person(task: Task, kind: str) -> None:
    """Another study may have changed the answer; the person must not get a second budget."""
    good = RECORDS[kind][0]
    other = {**good, **dict.fromkeys(task.answers(), "another")}
    if kind == "causal-lm":  # whose answers stand among the turns
        question = {"role": "user", "content": "the film " * 10}
        good, other = ({"messages": [question, {"role": "assistant", "content": text}]} for text in ("yes", "no"))
    known, again, somebody = (
        names_of(record, task, bytes(32)) for record in (good, other, {**good, task.inputs()[0]: "another"})
    )
    assert known
    assert again
    assert somebody
    assert set(known.claimed) & set(again.barred)
    assert not set(known.claimed) & set(somebody.barred)


@pytest.mark.parametrize("answer", [None, 3, "x", [None], [{}], [{"label": 3}], ["B-"], {"a": []}, object()])
def test_translating_and_cutting_never_fail(task: Task, kind: str, answer: Any) -> None:
    """Both run in every round: an error there would be an answer about one record."""
    for name in task.fields():
        assert task.cut({**RECORDS[kind][0], name: answer}, 3).keys() == RECORDS[kind][0].keys()
    record = {**RECORDS[kind][0], task.fields()[-1]: answer}
    translated = task.translate(record, {"x": "y", "": "z"})
    assert translated.keys() == record.keys()


def test_all_windows_of_a_record_are_one_unit(kind: str, model: WarmModel) -> None:
    """A long text must weigh no more than a short one, alone or in a group with another."""
    task = model.task
    long, short = task.made_up(0, 1), task.made_up(0, 2, 5)
    windows, few = (len(task.examples(record, model.tokenizer)) for record in (long, short))
    alone = make_units([long, short], task, model.tokenizer, bytes(32))
    assert sorted(map(len, alone.units)) == sorted([windows, few])
    together = make_units([{**r, "group": "p"} for r in (long, short)], task, model.tokenizer, bytes(32), 2)
    assert [len(unit) for unit in together.units] == [windows + few]


def test_a_base_reads_to_which_of_two_texts_a_token_belongs(task: Task, kind: str, model: WarmModel) -> None:
    if "token_type_ids" not in task.columns():
        pytest.skip("one text")
    batch = collate(task.examples(RECORDS[kind][0], model.tokenizer), 64, model.pads, model.device)
    assert set(batch["token_type_ids"].flatten().tolist()) == {0, 1}
    with torch.no_grad():
        losses = [
            task.losses(model.module, {**batch, "token_type_ids": types})
            for types in (batch["token_type_ids"], batch["token_type_ids"] * 0)
        ]
    assert not torch.equal(*losses)


def test_states_of_lower_layers_that_are_kept_give_the_same_losses(
    task: Task, kind: str, make_run: Callable[..., RunConfig]
) -> None:
    model = warm_model(of_kind(make_run(adapter={"layers": "top:1"}), kind))
    if model.lower is None:
        pytest.skip("this family has no such layers")
    examples = [example for record in RECORDS[kind] for example in task.examples(record, model.tokenizer)]
    batch = collate(examples, padded_length(max(map(length, examples))), model.pads, model.device)
    with torch.no_grad():
        kept = model.losses({**batch, PREFIX: model.prefix(batch)})
        torch.testing.assert_close(kept, task.losses(model.module, batch), rtol=0.02, atol=0.02)  # kept in bfloat16
