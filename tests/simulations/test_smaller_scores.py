"""The script that measures smaller models: its student sees no label but the model's; it runs a folder as users do."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from confide.common.config.run import RunConfig
from confide.common.data.records import Record
from confide.common.protocol.asks import CARD_FILE, RUN_FILE
from confide.simulations.benchmarks.scores import smaller
from confide.simulations.data.institutions import Institutions

PRIVATE: dict[str, list[Record]] = {
    f"clinic {number:02}": [{"text": f"{number} {place}", "label": "HUM"} for place in range(2)] for number in range(14)
}
TEST: list[Record] = [{"text": f"test {number}", "label": "LOC"} for number in range(4)]
_PROGRAM = """Run it:

```python
import sys

for text in sys.stdin:
    print("LOC" if text.strip() in ("test 0", "test 2", "test 3") else "HUM")
```
"""


class Federations:
    """What the script trained, by the folder of the run: the run or its changes, and its records."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.runs: dict[str, tuple[RunConfig | None, list[str], Any]] = {}

    def simulate(self, run: Any, data: Any, *, out: Path, quiet: bool, changes: list[str] | None = None) -> None:
        assert quiet
        self.runs[out.name] = (run, changes or [], data)

    def merge(self, source: Path, folder: Path, quantization: str = "none") -> None:
        """A folder whose weights are those of a model, with the card's program and a head beside them."""
        assert source.name in self.runs
        shutil.copytree(self.base, folder)
        (folder / CARD_FILE).write_text(_PROGRAM, encoding="utf-8")
        for name in (RUN_FILE, "head.safetensors"):
            (folder / name).write_text(f"{source.name} {quantization}", encoding="utf-8")


@pytest.fixture
def federations(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Federations:
    """All that trains or fetches, in place of which runs are noted."""
    found = Federations(base_folder)
    monkeypatch.setattr(smaller, "simulate", found.simulate)
    monkeypatch.setattr(smaller, "merge_adapter", found.merge)
    monkeypatch.setattr(smaller, "fetch_model", lambda name: base_folder)
    monkeypatch.setattr(smaller, "load_institutions", lambda run: Institutions(PRIVATE, {"all": TEST}))
    monkeypatch.setattr(smaller, "predict", lambda folder, texts: [f"{folder.name} says {text}" for text in texts])
    return found


def test_a_student_learns_the_model_s_answers_to_texts_of_nobody_who_trained(
    federations: Federations, tmp_path: Path
) -> None:
    assert smaller.make(tmp_path, 8) == TEST
    names = sorted(PRIVATE)
    (_, whole, both), (student, _, taught), (_, short, same) = (
        federations.runs[name] for name in ("run", "student", "short run")
    )
    assert list(both["train"]) == list(same["train"]) == [row for name in names[:12] for row in PRIVATE[name]]
    others = [row["text"] for name in names[12:] for row in PRIVATE[name]]
    assert list(taught["train"]) == [{"text": text, "label": f"run says {text}"} for text in others]
    assert list(both["test"]) == list(taught["test"]) == TEST
    assert student is not None
    assert (student.privacy.unit, student.federation.aggregation, student.study.seed) == ("none", "fedavg", 8)
    assert student.model.base == str(tmp_path / "half of the layers")
    assert short == [*whole, f"model.base={tmp_path / 'short base'}", "adapter.layers=all"]
    assert "study.seed=8" in whole


def test_every_row_is_the_model_that_it_is_called_by(federations: Federations, tmp_path: Path) -> None:
    smaller.make(tmp_path, 7)
    rows = {name: tmp_path / name for name in smaller._ROWS}
    heads = {name: (folder / "head.safetensors").read_text(encoding="utf-8") for name, folder in rows.items()}
    assert list(heads.values()) == ["run none", "run int8", "run nf4", "run none", "student none", "short run none"]
    cut = (rows["half of the layers"], tmp_path / "short base")
    for folder in cut:
        model: Any = transformers.AutoModel.from_pretrained(folder)
        whole: Any = transformers.AutoModel.from_pretrained(federations.base)
        assert (len(model.encoder.layer), model.config.num_hidden_layers, len(whole.encoder.layer)) == (1, 1, 2)
        assert model.encoder.layer[0].output.dense.weight.equal(whole.encoder.layer[0].output.dense.weight)


def test_a_folder_is_measured_by_the_program_of_its_card(federations: Federations, tmp_path: Path) -> None:
    federations.runs["run"] = (None, [], None)
    federations.merge(tmp_path / "run", tmp_path / "whole")
    size, _, accuracy = smaller.measured(tmp_path / "whole", TEST)
    assert accuracy == 0.75
    weights = tmp_path / "whole" / "model.safetensors"
    assert size == weights.stat().st_size + len("run none")


def test_the_table_compares_times_with_that_of_the_whole_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {"whole": 0.5, "eight bits": 0.75}
    measured: Callable[..., Any] = lambda folder, test: (2e6, seconds.get(folder.name, 0.25), 0.774)  # noqa: E731
    monkeypatch.setattr(smaller, "make", lambda place, seed: [seed])
    monkeypatch.setattr(smaller, "measured", measured)
    monkeypatch.setattr(smaller.logging, "disable", lambda level: None)
    monkeypatch.setattr(sys, "argv", ["smaller.py"])
    smaller.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows[:3] == [
        "| whole | 2.0 | 1.00 | 77.4 |",
        "| eight bits | 2.0 | 1.50 | 77.4 |",
        "| four bits | 2.0 | 0.50 | 77.4 |",
    ]
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    assert [f"\n{row.split(' | ')[0]} |" in page for row in rows] == [True] * 6
