"""The toy kind of docs/extending.md: complete, under 60 lines, and trained for a step under privacy."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import create_model
from support.coins import TestCoins

from confide.client.data.units import make_units
from confide.client.training.batches import batch_units
from confide.client.training.local_steps import LocalWork, train
from confide.client.training.trial import tried_shapes
from confide.common.config.run import RunConfig, make_plan
from confide.common.model.adapter import get_state
from confide.common.model.evaluation import evaluate, predict
from confide.common.model.warm_model import warm_model

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"


def test_the_toy_kind_of_the_docs_trains(
    make_run: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    [program] = re.findall(r"(?s)```python\n(.*?)```", PAGE.read_text(encoding="utf-8"))
    assert len([line for line in program.splitlines() if line.strip()]) < 60
    defined: dict[str, type] = {}
    exec(program, defined)  # noqa: S102 - the page of our own documentation
    task = defined["Parity"](max_length=64)
    own = create_model("Own", __base__=RunConfig, task=(defined["Parity"], ...))
    run = own.model_validate(make_run().model_dump() | {"task": task})
    model = warm_model(run)
    records = [task.made_up(0, number, 1 + number % 7) for number in range(20)]
    units = batch_units(make_units(records, task, model.tokenizer, bytes(32)), model, tried_shapes(model, 256))
    before = get_state(model.module)
    work = LocalWork(make_plan(run, 20), before, 1, 1.0)
    change = train(work, model, units, TestCoins(1))
    assert all(np.isfinite(value).all() and value.any() for value in change.values())
    scores = evaluate(model, before, {"public": records})
    assert scores.metric == "accuracy"
    assert 0 <= scores.mean <= 1
    card = {"torch": torch, "tokenizer": model.tokenizer, "model": model.module.encoder, "head": model.module.plain()}
    exec(task.program(), {**card, "text": records[0]["text"]})  # noqa: S102 - of the same page
    assert capsys.readouterr().out.strip() == str(predict(model, records[:1])[0])
