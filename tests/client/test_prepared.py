"""What a client prepares once a run (encoded units) belongs to that run and to no other."""

from typing import Any

import numpy as np
from support.coins import TestCoins
from support.sites import SECRET, make_records

from confide.client import app
from confide.client.site_config import Site, SiteConfig
from confide.common.configuration import check
from confide.common.gate import dump_state
from confide.common.messages import Ask, Update, sha256
from confide.common.models import find_model, hash_model
from confide.common.run_config import RunConfig

PLACES = [f"encoder.layer.{layer}.attention.self.{name}" for layer in (0, 1) for name in ("query", "value")]


def _site() -> Site:
    content = {
        "institution": {"name": "st-mary"},
        "dataset": {"id": "people", "path": "x.jsonl", "declared_units": 20, "validation_fraction": 0.0},
        "compute": {"device": "cpu"},
    }
    records = [{**record, "label": "abc"[number % 3]} for number, record in enumerate(make_records(6))]
    return Site(check(SiteConfig, content, "test"), lambda task: records, SECRET, lambda error: None)


def _ask(run: RunConfig) -> Ask:
    labels, text = len(run.task.labels), run.canonical_json()
    zeros = {f"{place}.lora_B.weight": np.zeros((32, 4)) for place in PLACES}
    state = dump_state({**zeros, "head.weight": np.zeros((labels, 32)), "head.bias": np.zeros(labels)})
    return Ask("test", "0f" * 16, 1, text, sha256(text.encode()), sha256(state), 1e12, state)


def test_another_run_under_the_same_lineage_finds_nothing_prepared_for_the_first(make_run: Any) -> None:
    """Labels of the first run, used in the second, would end a round whenever a record of class c is drawn."""
    prepared: dict[Any, Any] = {}
    base_sha256 = hash_model(find_model(make_run().model.base))
    for labels in (["a", "b", "c"], ["a", "b"]):
        run = make_run(task={"labels": labels}, model={"sha256": base_sha256}, local={"sampling_probability": 1.0})
        content = app._update(_ask(run), _site(), prepared, lambda: TestCoins(0), set())
        assert Update.from_content(content).envelope.plan_sha256 == run.sha256()
