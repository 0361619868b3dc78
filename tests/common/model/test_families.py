"""Every family of base models: the layers that "auto" adapts, a private step, and gradients like a loop's."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from conftest import MakeRun
from support.families import BOTH, DECODERS, EACH, ENCODERS, SETTINGS, save_tiny
from support.kinds import of_kind
from support.sites import random_state
from support.speed import CPU

from confide.client.training.trial import tried_shapes
from confide.common.config.run import RunConfig
from confide.common.data.batches import collate, length, padded_length
from confide.common.errors import InputError
from confide.common.methods import is_added
from confide.common.model.adapter import build_module, schema, set_state
from confide.common.model.families import TARGETS, with_targets
from confide.common.model.warm_model import warm_model
from confide.common.privacy.gradients import per_example_gradients


@pytest.fixture(scope="module", params=EACH)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(family, tmp_path_factory.mktemp("family") / family)


def _tasks(family: str) -> list[dict[str, object]]:
    """The kinds that fit a family."""
    kinds: list[dict[str, object]] = []
    if family not in BOTH:
        kinds.append({"labels": ["negative", "positive"], "max_length": 32})
    if family in DECODERS:
        kinds.append({"kind": "causal-lm", "form": "completion", "max_length": 32, "labels": None})
    if family in BOTH:
        kinds.append({"kind": "seq2seq", "max_length": 32, "labels": None})
    return kinds


def _run(make_run: MakeRun, folder: Path, task: dict[str, object]) -> RunConfig:
    run = make_run(model={"base": str(folder)}, adapter={"targets": "auto"})
    content = {**run.model_dump(), "task": {name: value for name, value in task.items() if value is not None}}
    return RunConfig.model_validate(
        {**content, "task": {"kind": "text-classification", **content["task"]}}, strict=False
    )


def test_gradients_are_those_of_one_row_at_a_time(make_run: MakeRun, family: str, folder: Path) -> None:
    for task in _tasks(family):
        model = warm_model(_run(make_run, folder, task), CPU)
        set_state(model.module, random_state(model))
        examples = [model.task.examples(model.task.made_up(0, n, 5 + 3 * n), model.tokenizer)[0] for n in range(3)]
        padded = padded_length(max(map(length, examples)))
        model.wrapped.enable_hooks()
        together = per_example_gradients(
            model.wrapped, model.losses, collate(examples, padded, model.pads, model.device)
        )
        model.wrapped.disable_hooks()
        for row, example in enumerate(examples):
            model.module.zero_grad()
            model.task.losses(model.module, collate([example], padded, model.pads, model.device)).sum().backward()
            alone = torch.cat([p.grad.flatten() for p in model.module.parameters() if p.requires_grad])
            assert alone.abs().max() > 0
            torch.testing.assert_close(together[row], alone, rtol=1e-3, atol=1e-5 * float(alone.abs().max()))


def test_auto_adapts_query_and_value_of_every_layer(make_run: MakeRun, family: str, folder: Path) -> None:
    run = with_targets(_run(make_run, folder, _tasks(family)[0]), folder)
    assert run.adapter.targets == TARGETS[family]
    names = [name for name in schema(build_module(run, folder, torch.device("meta"))) if is_added(name)]
    layers = 2 if family not in BOTH else 2 + 2 * 2  # a decoder attends to its own words and to the source's
    assert len(names) == layers * len(run.adapter.targets)


def test_a_family_runs_in_shapes_that_give_every_unit_the_same(make_run: MakeRun, family: str, folder: Path) -> None:
    """A mixture of experts computes every row alone: which expert reads a token follows from the numbers."""
    model = warm_model(_run(make_run, folder, _tasks(family)[-1]), CPU)
    shapes = tried_shapes(model, 128)
    most = max(rows for rows, _ in shapes.all())
    assert (most == 1) == (family == "mixtral")


def test_a_family_of_another_name_needs_targets(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}), encoding="utf-8")
    with pytest.raises(InputError, match="does not know models of type 'mamba'; name the linear layers"):
        with_targets(make_run(adapter={"targets": "auto"}), tmp_path)
    named = make_run(adapter={"targets": ["x_proj"]})
    assert with_targets(named, tmp_path) is named


@pytest.mark.parametrize("name", TARGETS)
def test_the_table_names_layers_of_each_family(name: str) -> None:
    config = transformers.AutoConfig.for_model(name)
    for layers in ("num_hidden_layers", "encoder_layers", "decoder_layers"):
        if hasattr(config, layers):
            setattr(config, layers, 1)
    with torch.device("meta"):
        layers = [f".{layer}" for layer, _ in transformers.AutoModel.from_config(config).named_modules()]
    assert [target for target in TARGETS[name] if not any(layer.endswith(f".{target}") for layer in layers)] == []


def test_every_family_of_the_table_has_a_tiny_model() -> None:
    assert {*ENCODERS, *DECODERS, *BOTH} == set(SETTINGS) <= set(TARGETS)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("llama", "seq2seq", "of type 'llama', which cannot do task.kind = 'seq2seq': that needs an encoder-decoder"),
        ("t5", "causal-lm", "of type 't5', which cannot do task.kind = 'causal-lm': that needs a model that writes"),
        ("t5", "preference", "of type 't5', which cannot do task.kind = 'preference': that needs a model that writes"),
        ("t5", "scoring", "of task.kind = 'scoring' .* an encoder-decoder is for task.kind = 'seq2seq'"),
    ],
)
def test_a_kind_that_a_family_cannot_do_is_named(
    make_run: MakeRun, tmp_path: Path, name: str, kind: str, words: str
) -> None:
    run = of_kind(make_run(adapter={"targets": "auto"}), kind)
    base = save_tiny(name, tmp_path / name)
    with pytest.raises(InputError, match=words) as refused:
        warm_model(run.model_copy(update={"model": run.model.model_copy(update={"base": str(base), "sha256": None})}))
    assert "\n" not in str(refused.value)
