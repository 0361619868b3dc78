"""Noised validation counts: disjoint cells in which a unit weighs 1; noised, charged, and only where allowed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load
from support import guarantees, tiny_bert
from support.coins import TestCoins
from support.installations import Asking, kinds, update_of, write_site
from support.leaving import grouped
from support.sites import make_records, random_state
from support.toy import make_plan

from confide.client.site.installation import open_site
from confide.client.training import validation
from confide.client.training.validation import count_cells, validate
from confide.common.config.run import RunConfig, lock
from confide.common.model.adapter import set_state
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.noise import noised_cells

MakeRun = Callable[..., RunConfig]

# Units of records that say what will be predicted of them and what is true.
GUESSES = st.fixed_dictionaries({"guess": st.sampled_from("ab"), "label": st.sampled_from("ab")})
UNIT = st.lists(GUESSES, min_size=1, max_size=12)


def _cells(units: list[list[dict[str, Any]]]) -> np.ndarray:
    """`count_cells` with a model that predicts what the record says."""
    right = {"truth": lambda record: record["label"], "rightness": lambda truth, guess: float(truth == guess)}
    task = SimpleNamespace(**right)
    model: Any = SimpleNamespace(task=task, tokenizer=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "predict", lambda model, records: [record["guess"] for record in records])
        return count_cells(model, units)


# Counts


@given(units=st.lists(UNIT, max_size=8))
def test_cells_are_disjoint_and_every_unit_weighs_1(units: list[list[dict[str, Any]]]) -> None:
    right, wrong = _cells(units)
    assert right + wrong == pytest.approx(len(units))
    share = [sum(record["guess"] == record["label"] for record in unit) / len(unit) for unit in units]
    assert right == pytest.approx(sum(share))
    assert min(right, wrong) >= 0


@given(units=st.lists(UNIT, max_size=8), unit=UNIT, place=st.integers(0, 8))
def test_one_unit_more_moves_the_counts_by_at_most_1(
    units: list[list[dict[str, Any]]], unit: list[dict[str, Any]], place: int
) -> None:
    """In L2 norm, which the noise is for; and in L1 already."""
    change = _cells([*units[:place], unit, *units[place:]]) - _cells(units)
    assert np.linalg.norm(change) <= 1 + 1e-12
    assert np.abs(change).sum() == pytest.approx(1)


@pytest.mark.parametrize("right", [float("nan"), float("inf"), -1e9, 1.5])
def test_a_record_whose_rightness_is_no_share_counts_as_wrong(right: float) -> None:
    """Weights that a server chooses may give any number; a unit must weigh 1 all the same."""
    task = SimpleNamespace(truth=lambda record: 0.0, rightness=lambda truth, guess: right)
    model: Any = SimpleNamespace(task=task, tokenizer=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "predict", lambda model, records: [0.0])
        np.testing.assert_array_equal(count_cells(model, [[{}, {}]]), [0.0, 1.0])


def test_a_unit_weighs_1_in_the_counts_of_a_model(model: WarmModel) -> None:
    guarantees.check_a_unit_weighs_1_in_the_counts(model)


def test_no_units_have_no_weight(model: WarmModel) -> None:
    assert count_cells(model, []).tolist() == [0.0, 0.0]


def _between_the_labels(model: WarmModel) -> dict[str, Any]:
    """An adapter whose every prediction hangs on the last bit: a layer norm's outputs sum to 0 but for rounding."""
    state = {name: np.zeros_like(value) for name, value in random_state(model).items()}
    state["head.weight"][1] = 1.0
    return state


def test_one_unit_more_moves_the_counts_by_at_most_1_under_any_weights(model: WarmModel) -> None:
    """The server sends the weights. One record, alone and with one companion of another length."""
    set_state(model.module, _between_the_labels(model))
    random = np.random.Generator(np.random.PCG64(0))
    texts = [" ".join(random.choice(tiny_bert.WORDS, size=random.integers(1, 60))) for _ in range(50)]
    records = [{"text": text, "label": "negative"} for text in texts]
    alone = [count_cells(model, [[record]]) for record in records]
    for number, cells in enumerate(alone):
        for companion in records[:10]:
            change = count_cells(model, [[records[number]], [companion]]) - cells
            assert np.linalg.norm(change) <= 1 + 1e-9


class _Speechless:
    """A tokenizer without special tokens: there are texts of which it makes no token."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str, **settings: Any) -> Any:
        return {"input_ids": []} if text == "?" else self.tokenizer(text, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@pytest.mark.parametrize(
    "others",
    [0, 1, 5],
)
def test_a_record_without_tokens_stops_no_count(model: WarmModel, others: int) -> None:
    speechless = replace(model, tokenizer=_Speechless(model.tokenizer))
    units = [[record] for record in make_records(others)]
    assert count_cells(speechless, [*units, [{"text": "?", "label": "negative"}]]).sum() == pytest.approx(others + 1)


# Noise


def test_validation_counts_have_the_noise_of_the_plan(model: WarmModel) -> None:
    guarantees.check_validation_counts_have_the_noise_of_the_plan(model)


@pytest.mark.parametrize(("factor", "passes"), [(1.0, True), (2 / 3, False), (3 / 2, False)])
def test_a_wrong_scale_would_be_seen(model: WarmModel, factor: float, passes: bool) -> None:
    """The statistical test can fail: at 2/3 and 3/2 of the noise it does."""
    real = validation.noised_cells
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "noised_cells", lambda cells, plan, coins: real(cells, plan, coins) * factor)
        try:
            guarantees.check_validation_counts_have_the_noise_of_the_plan(model)
        except AssertionError:
            assert not passes
        else:
            assert passes


def test_counts_are_their_cells_where_the_coins_are_quiet(model: WarmModel) -> None:
    state, plan = random_state(model), make_plan(validation_releases=1)
    units = [[record] for record in make_records(9)]
    quiet = validate(plan, model, state, units, TestCoins(0, quiet=True))["cells"]
    set_state(model.module, state)
    np.testing.assert_allclose(quiet, count_cells(model, units), atol=1e-4)


def test_counts_lie_on_a_public_grid() -> None:
    """Low bits of a float64 would tell what was added to what."""
    plan = make_plan(validation_noise_multiplier=3.0)
    values = noised_cells(np.array([1 / 3, 2 / 3]), plan, TestCoins(0)).astype(float) * 2**19
    assert (values == np.round(values)).all()


def test_the_clip_and_the_steps_noise_do_not_enter(model: WarmModel) -> None:
    plans = [make_plan(validation_releases=1), make_plan(validation_releases=1, clip_norm=9.0, noise_multiplier=0.1)]
    cells = [validate(plan, model, random_state(model), [], TestCoins(0))["cells"] for plan in plans]
    np.testing.assert_array_equal(*cells)


# Who gives counts, and when


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    """Seven rounds, of which the third and the sixth have validation counts."""
    run = make_run(
        local={"sampling_probability": 1.0, "nominal_units": 20},
        federation={"num_rounds": 7},
        evaluation={"validation_every": 3, "validation_noise_multiplier": 2.0},
    )
    return lock(run, hash_model(base_folder))


@pytest.fixture
def ask(run: RunConfig, tmp_path: Path) -> Callable[..., Asking]:
    """``ask(share_metrics="none")``: a server and an institution that shares noised counts unless it says otherwise."""

    def open_one(run: RunConfig = run, records: Any = None, **policy: Any) -> Asking:
        settings = {"share_metrics": "private", **policy}
        site = open_site(write_site(tmp_path, records, policy=settings, dataset={"validation_fraction": 0.5}))
        return Asking(run, lambda: site)

    return open_one


def _rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row, _ in open_site(folder / "site.toml").ledger.rows() if row["kind"] == kind]


def test_counts_are_given_in_the_rounds_of_the_plan_only(ask: Callable[..., Asking], tmp_path: Path) -> None:
    asking = ask()
    given_in = [number for number in range(-1, 10) if number >= 0 and kinds(asking.counts(number)) == ["update"]]
    assert given_in == [3, 6]
    assert [(row["what"], row["round"], row["steps"], row["releases"]) for row in _rows(tmp_path, "reserve")] == [
        ("validation", 3, 0, 1),
        ("validation", 6, 0, 1),
    ]


def test_counts_are_charged_before_anything_is_counted(
    ask: Callable[..., Asking], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged = []

    def count(*rest: object) -> Any:
        charged.append(len(_rows(tmp_path, "reserve")))
        raise RuntimeError("and then the machine failed")

    monkeypatch.setattr(validation, "count_cells", count)
    assert kinds(ask().counts(3)) == ["declined"]
    assert charged == [1]
    assert len(_rows(tmp_path, "reserve")) == 1, "and the charge stays"


def test_at_most_the_plan_s_releases_are_given(ask: Callable[..., Asking], tmp_path: Path) -> None:
    """A server that begins the run anew, under another lineage, gets no third one."""
    asking = ask()
    replies = [asking.counts(3, lineage=lineage * 16) for lineage in ("aa", "bb", "cc", "dd")]
    assert [kinds(reply) for reply in replies] == [["update"]] * 2 + [["declined"]] * 2
    assert len(_rows(tmp_path, "reserve")) == 2
    assert kinds(asking.update(1)) == ["update"], "the steps are another allotment"


def test_the_same_counts_are_asked_for_again_and_are_the_same(ask: Callable[..., Asking], tmp_path: Path) -> None:
    """Each release draws new noise: an average of many would have none."""
    asking = ask()
    assert asking.counts(3) == asking.counts(3)
    assert len(_rows(tmp_path, "reserve")) == 1


def test_counts_and_update_of_a_round_are_two_answers(ask: Callable[..., Asking]) -> None:
    asking = ask()
    update, counts = update_of(asking.update(3)), update_of(asking.counts(3))
    assert (update.envelope.what, counts.envelope.what) == ("update", "validation")
    assert {name: value.shape for name, value in load(counts.payload).items()} == {"cells": (2,)}
    assert update.envelope.input_sha256 == counts.envelope.input_sha256
    assert update.envelope.ledger_head != counts.envelope.ledger_head


@pytest.mark.parametrize("policy", [{"share_metrics": "none"}, {"share_metrics": None}])
def test_who_shares_no_metrics_declines(ask: Callable[..., Asking], tmp_path: Path, policy: dict[str, Any]) -> None:
    asking = ask(**policy)
    assert kinds(asking.update(3)) == ["update"]
    assert kinds(asking.counts(3)) == ["declined"]
    assert {row["what"] for row in _rows(tmp_path, "reserve")} == {"update"}


@pytest.mark.parametrize("evaluation", [{"validation_every": None}, {"validation_every": 8}])
def test_a_plan_without_releases_has_no_counts(
    ask: Callable[..., Asking], run: RunConfig, evaluation: dict[str, Any]
) -> None:
    none = run.model_copy(update={"evaluation": run.evaluation.model_copy(update=evaluation)})
    asking = ask(none)
    for number in range(1, 8):
        assert kinds(asking.counts(number)) == ["declined"]


def test_without_privacy_there_are_no_counts(ask: Callable[..., Asking], run: RunConfig) -> None:
    """Nobody would know what noise such a count needs beside updates without any."""
    asking = ask(
        run.model_copy(update={"privacy": run.privacy.model_copy(update={"unit": "none"})}), allow_no_privacy=True
    )
    assert kinds(asking.update(3)) == ["update"]
    assert kinds(asking.counts(3)) == ["declined"]


def test_counts_are_of_the_validation_share_alone(ask: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all records, those that never trained: by the unit's key."""
    seen: list[list[list[dict[str, Any]]]] = []
    real = validation.count_cells

    def count(model: WarmModel, units: list[list[dict[str, Any]]]) -> Any:
        seen.append(units)
        return real(model, units)

    monkeypatch.setattr(validation, "count_cells", count)
    asking = ask(records=make_records(40))
    assert kinds(asking.counts(3)) == ["update"]
    [units] = seen
    assert 5 < len(units) < 35
    assert {len(unit) for unit in units} == {1}


def test_a_group_weighs_1_with_no_more_than_its_records(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = {"unit": "group", "columns": {"group": "group"}, "max_records_per_group": 2, "validation_fraction": 0.9}
    path = write_site(tmp_path, make_records(40, groups=10), dataset=dataset, policy={"share_metrics": "private"})
    sizes: list[int] = []
    real = validation.count_cells

    def count(model: WarmModel, units: list[list[dict[str, Any]]]) -> Any:
        sizes.extend(len(unit) for unit in units)
        assert real(model, units).sum() == pytest.approx(len(units))
        return real(model, units)

    monkeypatch.setattr(validation, "count_cells", count)
    assert kinds(Asking(grouped(run), lambda: open_site(path)).counts(3)) == ["update"]
    assert sizes
    assert set(sizes) == {2}


# What counts cost


def test_a_plan_with_releases_costs_more_and_as_much_as_by_hand() -> None:
    plan = make_plan(validation_releases=3, validation_noise_multiplier=4.0)
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    step = dp_event.PoissonSampledDpEvent(plan.sampling_probability, dp_event.GaussianDpEvent(plan.noise_multiplier))
    accountant.compose(step, plan.num_steps)
    accountant.compose(dp_event.GaussianDpEvent(4.0), 3)
    by_hand = accountant.get_epsilon(plan.target_delta)
    assert by_hand <= epsilon(plan) <= by_hand + 2e-4
    assert epsilon(plan) > epsilon(replace(plan, validation_releases=2)) > epsilon(replace(plan, validation_releases=0))
    assert epsilon(plan, 0, 3) < epsilon(plan) < epsilon(plan, 0, 3) + epsilon(plan, None, 0)


def test_the_noise_of_a_run_meets_its_target_with_the_counts(make_run: MakeRun) -> None:
    """`lock` calibrates for all that may be released."""
    counts = {"evaluation": {"validation_every": 4, "validation_noise_multiplier": 5.0}}
    privacy = {"noise_multiplier": None, "target_epsilon": 3.0}
    noises = [
        lock(make_run(privacy=privacy, **sections), "0" * 64).privacy.noise_multiplier or 0.0
        for sections in ({}, counts)
    ]
    assert noises[1] > noises[0]
