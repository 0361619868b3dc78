"""The child that has torch: what it reads before anybody is asked."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.cards import make_card
from support.sites import random_state

from confide.common.config.run import RunConfig, lock
from confide.common.errors import ConfideError
from confide.common.export.write import export_adapter
from confide.common.model.base_models import hash_model
from confide.common.model.evaluation import evaluate
from confide.common.model.warm_model import warm_model
from confide.server.daemon import rehearsal, run, torch_child
from confide.server.daemon.torch_child import Workshop
from confide.server.home.queue import QueuedRun

Work = Callable[[str], Workshop]
GOOD = {"text": "it was good", "label": "positive"}


@pytest.fixture
def work(tmp_path: Path, make_run: Callable[..., RunConfig]) -> Iterator[Work]:
    """A workshop at a server whose folder is ``srv``, of a run with these public records."""
    folder = tmp_path / "srv"
    folder.mkdir()
    (folder / "good.jsonl").write_text(json.dumps(GOOD), encoding="utf-8")
    (folder / "bad.jsonl").write_text(json.dumps({**GOOD, "label": "awful"}), encoding="utf-8")
    with ExitStack() as opened:
        yield lambda public: opened.enter_context(closing(Workshop(make_run(evaluation={"data": public}), folder)))


def test_public_records_are_found_in_the_server_s_folder_or_by_an_absolute_path(work: Work, tmp_path: Path) -> None:
    work("good.jsonl").read_public()
    work(str(tmp_path / "srv" / "good.jsonl")).read_public()


def test_samples_are_of_the_state_that_is_given_and_of_public_records(work: Work) -> None:
    child = work("good.jsonl")
    state = child.initial()
    sure = {name: np.zeros_like(value) for name, value in state.items()}
    for index, label in enumerate(["negative", "positive"]):
        sure["head.bias"] = np.eye(2, dtype=np.float32)[index]
        assert child.samples(sure) == [{"input": GOOD["text"], "answer": label, "right": GOOD["label"]}]


@pytest.mark.parametrize("folder", ["", pytest.param("srv", marks=pytest.mark.waits)], ids=["relative", "absolute"])
def test_a_run_goes_on_from_an_adapter_of_the_server_s_folder(
    folder: str, make_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """In this process: the folder is what matters, and a child takes seconds to begin."""
    start, old = (str(tmp_path / folder / name) if folder else name for name in ("adapter", "old.jsonl"))
    onward, before = make_run(adapter={"start_from": start}, evaluation={"earlier": old}), make_run()
    onward, before = (lock(each, hash_model(Path(each.model.base))) for each in (onward, before))
    model = warm_model(onward)
    state = random_state(model)
    export_adapter(tmp_path / "srv" / "adapter", before, model, state, make_card(before))
    records = [before.task.made_up(0, number, 9) for number in range(6)]
    (tmp_path / "srv" / "old.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    bench = torch_child._Bench(onward, tmp_path / "srv")
    bench.read_public()
    begun = bench.initial()
    assert begun.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_allclose(begun[name], value, rtol=1e-3, atol=1e-4)
    score = evaluate(model, state, {"": records}).mean
    assert bench.earlier(state) == {"records": 6, "start": score, "finished": score}


@pytest.mark.parametrize(
    ("public", "reason"),
    [("none.jsonl", "srv/none.jsonl: .*No such file"), ("bad.jsonl", "srv/bad.jsonl:1: .*'awful'")],
)
def test_public_records_that_cannot_be_used_are_named_with_the_remedy(work: Work, public: str, reason: str) -> None:
    with pytest.raises(ConfideError, match=f"evaluation.data = '{public}': .*{reason}.*; mend it at the server"):
        work(public).read_public()


@pytest.mark.parametrize("carry_out", [run.carry_out, rehearsal.rehearse])
def test_public_records_are_read_before_anybody_is_asked(
    carry_out: Callable[..., Any], tmp_path: Path, make_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typo would show after rounds that were paid for."""

    def unreadable() -> None:
        raise ConfideError("no such file")

    workshop = SimpleNamespace(read_public=unreadable, initial=dict, close=lambda: None)
    for module in (run, rehearsal):
        monkeypatch.setattr(module, "Workshop", lambda *_: workshop)
    shared: Any = SimpleNamespace(
        queue=SimpleNamespace(run_of=lambda _: make_run()),
        home=SimpleNamespace(
            runs=tmp_path / "runs",
            folder=tmp_path,
            config=SimpleNamespace(server=SimpleNamespace(tracking="none")),
        ),
        members_of=lambda run: {},
    )
    with pytest.raises(ConfideError, match="no such file"):
        carry_out(shared, SimpleNamespace(), QueuedRun("a-run", "ab" * 16))  # a link that can send nothing
