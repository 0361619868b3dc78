import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.sites import flatten, random_state
from support.speed import CPU
from support.tiny_bert import save_tiny_bert
from transformers import (
    BertForSequenceClassification,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaForSequenceClassification,
)

from confide.common.errors import InputError
from confide.common.model.adapter import build_module, coordinate_weights, get_state, schema, set_state
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tensors import split

PLACES = [f"encoder.layer.{layer}.attention.self.{name}" for layer in (0, 1) for name in ("query", "value")]
B_KEYS = [f"{place}.lora_B.weight" for place in PLACES]
HEAD_KEYS = ["head.weight", "head.bias"]


def _fresh(make_run: object, base_folder: object, **sections: object) -> torch.nn.Module:
    return build_module(make_run(**sections), base_folder, torch.device("cpu"))  # type: ignore[operator,arg-type]


def test_exactly_b_and_the_head_travel(model: WarmModel) -> None:
    assert list(schema(model.module)) == [*B_KEYS, *HEAD_KEYS]


def test_a_travels_too_where_it_is_trained(make_run: object, base_folder: object) -> None:
    module = _fresh(make_run, base_folder, adapter={"train": "AB"})
    assert set(schema(module)) == {*B_KEYS, *(key.replace("lora_B", "lora_A") for key in B_KEYS), *HEAD_KEYS}


def test_only_the_top_layers_travel_where_only_they_are_adapted(make_run: object, base_folder: object) -> None:
    module = _fresh(make_run, base_folder, adapter={"layers": "top:1"})
    assert list(schema(module)) == [key for key in [*B_KEYS, *HEAD_KEYS] if "layer.0." not in key]


def test_the_native_head_travels_under_its_own_name(make_run: object, base_folder: object) -> None:
    module = _fresh(make_run, base_folder, task={"pooling": "native"})
    assert set(schema(module)) == {f"bert.{key}" for key in B_KEYS} | {"classifier.weight", "classifier.bias"}


def test_a_has_orthonormal_rows_and_b_is_zero(make_run: object, base_folder: object) -> None:
    parameters = dict(_fresh(make_run, base_folder).named_parameters())
    factors = {name: value.detach() for name, value in parameters.items() if "lora_" in name}
    assert len(factors) == 8
    for name, value in factors.items():
        if "lora_A" in name:
            torch.testing.assert_close(value @ value.T, torch.eye(4), atol=1e-6, rtol=0)
        else:
            assert not value.any()


def test_start_values_come_from_the_public_seed_alone(make_run: object, base_folder: object) -> None:
    torch.manual_seed(1)
    first = dict(_fresh(make_run, base_folder).named_parameters())
    torch.manual_seed(2)
    again = dict(_fresh(make_run, base_folder).named_parameters())
    other = dict(_fresh(make_run, base_folder, study={"seed": 8}).named_parameters())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert {name for name in first if not torch.equal(first[name], other[name])} == {
        name for name in first if "lora_A" in name or name == "head.weight"
    }


def test_b_has_a_gradient_at_the_start(make_run: object, base_folder: object) -> None:
    """A zero head on a zero B would have none."""
    module = _fresh(make_run, base_folder)
    module(torch.tensor([[2, 5, 3]]), torch.ones(1, 3))[0, 0].backward()
    assert all(value.grad.any() for name, value in module.named_parameters() if "lora_B" in name)


def test_nothing_drops_out_and_everything_is_in_train_mode(model: WarmModel) -> None:
    assert all(module.training for module in model.module.modules())
    assert {m.p for m in model.module.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}


def test_a_state_comes_back_as_it_went_in(model: WarmModel) -> None:
    state = random_state(model)
    set_state(model.module, state)
    np.testing.assert_array_equal(flatten(get_state(model.module)), flatten(state))
    again = split(flatten(state).astype(np.float32), schema(model.module))
    assert all(np.array_equal(again[name], state[name]) for name in state)


def test_the_head_s_coordinates_have_the_head_s_weight(model: WarmModel) -> None:
    weights = coordinate_weights(schema(model.module), 0.1).numpy()
    assert weights.tolist() == pytest.approx([1.0] * 512 + [0.1] * 66)


def test_a_schema_needs_no_weights(make_run: object, base_folder: object, model: WarmModel) -> None:
    module = build_module(make_run(), base_folder, torch.device("meta"))  # type: ignore[operator,arg-type]
    assert schema(module) == schema(model.module)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"layers": "top:3"}, "the base has 2 layers"),
        ({"targets": ["q_proj"]}, "names 'q_proj', which is no layer of this base"),
    ],
)
def test_what_the_base_does_not_have_is_an_error(
    make_run: object, base_folder: object, adapter: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _fresh(make_run, base_folder, adapter=adapter)


def test_the_warm_model_is_loaded_once(make_run: object) -> None:
    first = warm_model(make_run(), CPU)  # type: ignore[operator]
    assert warm_model(make_run(local={"steps": 3}), CPU) is first  # type: ignore[operator]
    assert warm_model(make_run(study={"seed": 8}), CPU) is not first  # type: ignore[operator]


def test_a_task_with_more_tokens_than_the_base_has_positions_is_refused(make_run: object) -> None:
    """Else the first text that is long enough would end a round."""
    assert warm_model(make_run(task={"max_length": 128}), CPU)  # type: ignore[operator]
    with pytest.raises(InputError, match=r"task\.max_length = 129"):
        warm_model(make_run(task={"max_length": 129}), CPU)  # type: ignore[operator]


def test_a_tokenizer_with_more_tokens_than_the_base_has_embeddings_is_refused(make_run: object, tmp_path: Path) -> None:
    """Else the first text with such a token would end a round."""
    folder = save_tiny_bert(tmp_path, num_embeddings=100)
    with pytest.raises(InputError, match="100"):
        warm_model(make_run(model={"base": str(folder)}), CPU)  # type: ignore[operator]


def test_names_of_a_state_carry_nothing_of_peft(model: WarmModel) -> None:
    assert not [name for name in schema(model.module) if re.search("base_model|default|modules_to_save", name)]


def _head_of(architecture: type[PreTrainedModel], folder: Path, labels: int) -> Path:
    config = architecture.config_class(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=labels,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        architecture(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("labels", [1, 3, 5])
@pytest.mark.parametrize(
    "architecture", [BertForSequenceClassification, RobertaForSequenceClassification, LlamaForSequenceClassification]
)
def test_a_native_head_of_other_labels_is_refused_by_their_numbers(
    make_run: object, tmp_path: Path, architecture: type[PreTrainedModel], labels: int
) -> None:
    folder = _head_of(architecture, tmp_path, labels)
    targets = ["q_proj"] if architecture is LlamaForSequenceClassification else ["query"]
    plural = "label" if labels == 1 else "labels"
    message = f"its head has {labels} {plural}, task.labels 2; use task.pooling = 'mean'"
    with pytest.raises(InputError, match=message):
        _fresh(make_run, folder, task={"pooling": "native"}, adapter={"targets": targets})
    assert _fresh(make_run, folder, adapter={"targets": targets})  # a head of our own


def test_weights_of_another_shape_than_the_configuration_s_are_refused_by_name(
    make_run: object, tmp_path: Path
) -> None:
    folder = _head_of(BertForSequenceClassification, tmp_path, 2)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 90}), "utf-8")
    message = r"word_embeddings.weight is of shape \(100, 32\) in its weights, must be \(90, 32\)"
    for pooling in ("mean", "native"):
        with pytest.raises(InputError, match=message):
            _fresh(make_run, folder, task={"pooling": pooling})


def test_a_base_without_a_native_head_is_told_so(make_run: object, base_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert-generation"}), "utf-8")
    with pytest.raises(InputError, match=r"of type 'bert-generation', which cannot do .* use task\.pooling = 'mean'"):
        _fresh(make_run, folder, task={"pooling": "native"})
