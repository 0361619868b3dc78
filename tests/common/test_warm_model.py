"""What a base model has to be, found out before any run is joined."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun
from transformers import BertModel

from confide.common.errors import InputError
from confide.common.warm_model import forget_models, warm_model


def test_a_base_that_gives_no_gradient_for_each_example_is_refused_before_any_run(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else just those rounds would be declined whose private draw is not empty."""

    def fails(*_: object) -> None:
        raise RuntimeError("a trained layer is used on something else")

    forget_models()
    monkeypatch.setattr("confide.common.warm_model.per_example_gradients", fails)
    with pytest.raises(InputError, match="gives no gradient for each example"):
        warm_model(make_run(), "cpu")
    monkeypatch.undo()
    assert warm_model(make_run(), "cpu")


def test_a_base_that_reads_otherwise_once_a_text_was_short_is_refused_before_any_run(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one short record would change the gradients of all others, by more than its own clip: BigBird does so."""
    forward, was_short = BertModel.forward, list[bool]()

    def forward_of_a_bird(self: BertModel, *arguments: Any, **named: Any) -> Any:
        found = forward(self, *arguments, **named)
        was_short.extend([True] * (found.last_hidden_state.shape[1] <= 8))
        found.last_hidden_state = found.last_hidden_state * (2.0 if was_short else 1.0)
        return found

    forget_models()
    monkeypatch.setattr(BertModel, "forward", forward_of_a_bird)
    with pytest.raises(InputError, match="after it has read a shorter one"):
        warm_model(make_run(), "cpu")
    monkeypatch.undo()
    assert warm_model(make_run(), "cpu")


@pytest.mark.parametrize(("max_length", "limit", "most"), [(129, 129, 128), (60, 60, 56), (57, 63, 56)])
def test_a_row_that_is_padded_beyond_the_last_position_is_refused_before_any_run(
    make_run: MakeRun, base_folder: Path, tmp_path: Path, max_length: int, limit: int, most: int
) -> None:
    """Else just those rounds would be declined whose private draw holds so long a text."""
    base = shutil.copytree(base_folder, tmp_path / "base")
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": limit}), encoding="utf-8")
    with pytest.raises(InputError, match=f"reads {limit} tokens, .* at most {most}"):
        warm_model(make_run(model={"base": str(base)}, task={"max_length": max_length}), "cpu")
