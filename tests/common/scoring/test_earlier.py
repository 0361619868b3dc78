"""Forgetting: what a run that goes on from an adapter has kept of the earlier task."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cards import make_card
from support.sites import random_state
from support.speed import CPU

from confide.common.config.run import RunConfig, load_run, lock
from confide.common.errors import InputError
from confide.common.export.start import with_start
from confide.common.export.write import export_adapter
from confide.common.model.base_models import hash_model
from confide.common.model.evaluation import evaluate
from confide.common.model.warm_model import warm_model
from confide.common.scoring.earlier import earlier_scores, read_earlier

MakeRun = Callable[..., RunConfig]


def test_the_start_and_the_result_are_scored_on_the_earlier_records(
    make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    before = lock(make_run(), hash_model(base_folder))
    model = warm_model(before, CPU)
    learnt, finished = random_state(model, 3), random_state(model, 4)
    export_adapter(tmp_path / "adapter", before, model, learnt, make_card(before))
    task = before.task
    records = [task.made_up(0, number, 9) for number in range(40)]
    wanted = [evaluate(model, state, {"": records}).mean for state in (learnt, finished)]
    assert wanted[0] != wanted[1]
    earlier = tmp_path / "earlier.jsonl"
    earlier.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    adapter = before.adapter.model_copy(update={"start_from": str(tmp_path / "adapter")})
    evaluation = before.evaluation.model_copy(update={"earlier": str(earlier)})
    run = with_start(before.model_copy(update={"adapter": adapter, "evaluation": evaluation}))
    read = read_earlier(run, str(earlier))
    found = earlier_scores(warm_model(run, CPU), run, finished, read)
    assert found == {"records": 40, "start": pytest.approx(wanted[0]), "finished": pytest.approx(wanted[1])}
    assert earlier_scores(model, before, finished, read_earlier(before, None)) is None


def test_earlier_records_need_an_adapter_to_go_on_from(tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.write_text('[study]\nname = "on"\n[task]\nlabels = ["a", "b"]\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"adapter\.start_from names no adapter"):
        load_run(run, ["evaluation.earlier=old.jsonl"])


def test_a_bad_file_of_earlier_records_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evaluation\.earlier = None: .*missing\.jsonl"):
        read_earlier(make_run(), str(tmp_path / "missing.jsonl"))
