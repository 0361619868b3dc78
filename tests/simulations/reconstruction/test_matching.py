"""Gradient matching: tokens come back by search without noise, and with noise no more than by chance."""

from collections.abc import Callable

import numpy as np
import pytest
from support.kinds import of_kind

from confide.common.config.run import RunConfig, lock
from confide.common.methods.prompt_tuning import PromptTuning
from confide.common.model.warm_model import WarmModel, warm_model
from confide.simulations.reconstruction.inversion import PLAIN, invert, lone_update
from confide.simulations.reconstruction.matching import Limits, in_common, match, search

MakeRun = Callable[..., RunConfig]


def _locked(make_run: MakeRun, kind: str = "text-classification", **adapter: object) -> RunConfig:
    run = of_kind(make_run(adapter=adapter, federation={"num_rounds": 4}), kind)
    return lock(run, "0" * 64).model_copy(update={"model": run.model})


def _model(run: RunConfig) -> WarmModel:
    return warm_model(run, run.speed)


def _chance() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(0))


@pytest.mark.waits
@pytest.mark.parametrize("adapter", [{"layers": "top:1"}, {"rank": 2}])
def test_tokens_come_back_where_span_look_up_says_nothing(make_run: MakeRun, adapter: dict[str, object]) -> None:
    run = _locked(make_run, **adapter)
    assert invert(run, _model(run)).void
    found = match(run, _model(run), Limits(1, 60, 1e6), _chance())
    assert found.shares is not None
    assert found.shares.without_noise >= 0.5
    assert found.shares.without_noise >= 0.2 + max(found.shares.with_noise, found.shares.chance)
    assert max(found.shares.with_noise, found.shares.chance) <= 0.5


def test_a_search_finds_two_tokens_and_uses_nothing_of_the_text_but_its_length(make_run: MakeRun) -> None:
    run = _locked(make_run, layers="top:1")
    model = _model(run)
    text = model.task.examples({"text": "film hated", "label": "positive"}, model.tokenizer)[0]
    limits = Limits(1, 25, 1e6)
    assert in_common(text, search(model, text, lone_update(model, text, PLAIN), limits, _chance()), model) == 2
    other = model.task.examples({"text": "very long", "label": "positive"}, model.tokenizer)[0]
    update = lone_update(model, other, PLAIN)
    assert search(model, text, update, limits, _chance()) == search(model, other, update, limits, _chance())


def test_tokens_count_as_often_as_both_texts_have_them(make_run: MakeRun) -> None:
    model = _model(make_run())
    text = model.task.examples({"text": "good good film", "label": "positive"}, model.tokenizer)[0]
    for guess, count in (("film good bad", 2), ("good good good", 2), ("bad bad bad", 0), ("film good good", 3)):
        other = model.task.examples({"text": guess, "label": "positive"}, model.tokenizer)[0]
        assert in_common(text, other["input_ids"], model) == count


@pytest.mark.parametrize("kind", ["token-classification", "causal-lm"])
def test_kinds_that_the_search_does_not_know_tell_why(make_run: MakeRun, model: WarmModel, kind: str) -> None:
    assert "read one text and write none" in str(match(_locked(make_run, kind), model).void)


def test_virtual_tokens_are_told_as_a_reason(make_run: MakeRun) -> None:
    run = make_run()
    prompt = run.model_copy(update={"adapter": PromptTuning(method="prompt-tuning")})
    assert "virtual tokens" in str(match(prompt, _model(run)).void)
