"""What several tests share: a tiny random BERT with a tokenizer, run configurations on it, injected coins."""
# ruff: noqa: E402 - the environment comes before the libraries that read it

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
_FLOWER_HOME = tempfile.TemporaryDirectory(prefix="confide-tests-")  # removed when the tests end
os.environ["FLWR_HOME"] = _FLOWER_HOME.name

from confide.common.flower import prepare

prepare()  # before the first import of flwr, in whatever test file that is

import pytest
import torch
from hypothesis import settings
from support.coins import TestCoins
from support.speed import CPU
from support.tiny_bert import save_tiny_bert

from confide.common.config.run import RunConfig, check
from confide.common.model import adapter
from confide.common.model.warm_model import WarmModel, warm_model

MakeRun = Callable[..., RunConfig]
settings.register_profile("on any machine", deadline=None)  # a loaded one takes longer over an example
settings.load_profile("on any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that no worker is left with one when the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)  # all else keeps its order


@pytest.fixture(scope="session", autouse=True)
def _one_thread_and_float32() -> Iterator[None]:
    """The same arithmetic on every machine: bfloat16 where the CPU has tiles would be another test."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        names = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
        patch.setattr(adapter, "base_precision", lambda device, name: names[name])
        yield


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT with 2 layers, hidden size 32, and its WordPiece tokenizer."""
    return save_tiny_bert(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="session")
def make_run(base_folder: Path) -> MakeRun:
    """``make_run(privacy={"unit": "group"}, local={"steps": 3})``: a checked run on the tiny BERT."""

    def factory(**sections: dict[str, Any]) -> RunConfig:
        content: dict[str, dict[str, Any]] = {
            "study": {"name": "test"},
            "model": {"base": str(base_folder)},
            "adapter": {"rank": 4, "targets": ["query", "value"]},
            "task": {"kind": "text-classification", "labels": ["negative", "positive"], "max_length": 64},
            "privacy": {"noise_multiplier": 1.0},
            "speed": {"device": "cpu", "tokens_per_micro_batch": 128},  # few shapes to try, of few rows
        }
        for name, values in sections.items():
            content[name] = {**content.get(name, {}), **values}
        return check(RunConfig, content, "test")

    return factory


@pytest.fixture(scope="session")
def model(make_run: MakeRun) -> WarmModel:
    """The tiny BERT with a rank-4 adapter and a mean-pooled head; `set_state` it before you read its weights."""
    return warm_model(make_run(), CPU)


@pytest.fixture
def coins() -> TestCoins:
    """Reproducible coins."""
    return TestCoins(0)
