"""Merged models: plain transformers folders that compute what the adapter computes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from support import families
from support.cards import make_card
from support.families import BOTH, DECODERS, EACH, save_tiny
from support.kinds import LINES, of_kind
from support.sites import random_state
from support.speed import CPU

from confide.common.config.run import RunConfig, lock
from confide.common.config.sections import Quantization
from confide.common.data.batches import collate
from confide.common.errors import InputError
from confide.common.export.merge import merge_adapter
from confide.common.export.write import export_adapter
from confide.common.model.adapter import set_state
from confide.common.model.base_models import hash_model
from confide.common.model.evaluation import answer, write
from confide.common.model.families import with_targets
from confide.common.model.warm_model import warm_model
from confide.common.tasks.causal_lm import CausalLM
from confide.common.tasks.seq2seq import Seq2Seq

MakeRun = Callable[..., RunConfig]


@pytest.mark.parametrize("family", EACH)
def test_a_merged_model_computes_what_the_adapter_does(make_run: MakeRun, family: str, tmp_path: Path) -> None:
    base = save_tiny(family, tmp_path / "base")
    run = with_targets(make_run(model={"base": str(base)}, adapter={"targets": "auto"}), base)
    if family in DECODERS:
        run = run.model_copy(update={"task": CausalLM(kind="causal-lm", form="text", max_length=32, max_new_tokens=8)})
    if family in BOTH:
        run = run.model_copy(update={"task": Seq2Seq(kind="seq2seq", max_length=32, max_new_tokens=8)})
    run = lock(run, hash_model(base))
    model = warm_model(run, CPU)
    state = random_state(model)
    export_adapter(tmp_path / "adapter", run, model, state, make_card(run))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = run.task.auto_class().from_pretrained(tmp_path / "merged").eval()
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    record = run.task.made_up(0, 1, 9)
    batch = collate(run.task.examples(record, model.tokenizer), 32, model.pads, model.device)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if family in BOTH:
        inputs["decoder_input_ids"] = batch["input_ids"]
    model.wrapped.disable_hooks()
    with torch.inference_mode():
        ours = model.module.encoder.get_base_model()(**inputs)[0]  # states, or the logits of a base that writes
        theirs = merged(**inputs)[0]
    real = batch["attention_mask"].bool()
    np.testing.assert_allclose(ours[real], theirs[real], rtol=1e-3, atol=1e-4)
    if run.task.longest_answer():
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
        ids = torch.tensor([run.task.prompt(record, tokenizer)])
        written = merged.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        own = written[0] if family in BOTH else written[0, ids.shape[1] :]
        assert [tokenizer.decode(own, skip_special_tokens=True).strip()] == write(model, [record])


@pytest.mark.waits
@pytest.mark.parametrize("kind", ["text-classification", "causal-lm"])
def test_a_pipeline_answers_from_a_merged_folder_as_we_do(make_run: MakeRun, kind: str, tmp_path: Path) -> None:
    """As docs/serving.md says: of the base's own head, and of chats. This seed gives both labels."""
    run = of_kind(make_run(), kind)
    if kind == "text-classification":
        run = run.model_copy(update={"task": run.task.model_copy(update={"pooling": "native"})})
    model = warm_model(run, CPU)
    state, texts = random_state(model, seed=37), LINES["text-classification"]
    export_adapter(tmp_path / "adapter", run, model, state, make_card(run))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    pipe = transformers.pipeline(run.task.pipeline_tag, model=str(tmp_path / "merged"))
    if kind == "causal-lm":
        chats = [[{"role": "user", "content": text}] for text in texts]
        written = pipe(chats, max_new_tokens=8, do_sample=False, return_full_text=False)
        found = [one["generated_text"].strip() for [one] in written]
    else:
        found = [one["label"] for one in pipe(texts)]
    set_state(model.module, state)
    ours = answer(model, [run.task.from_text(text) for text in texts])
    assert found == ours
    assert len(set(ours)) > 1


def test_a_folder_that_exists_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already, must be a new folder"):
        merge_adapter(tmp_path / "adapter", tmp_path)


def test_the_base_s_own_settings_are_kept(make_run: MakeRun, tmp_path: Path) -> None:
    """Training has neither dropout nor a cache; a merged model has what its base has."""
    base = save_tiny("llama", tmp_path / "base")
    config = json.loads((base / "config.json").read_text(encoding="utf-8")) | {"attention_dropout": 0.125}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    run = with_targets(make_run(model={"base": str(base)}, adapter={"targets": "auto"}), base)
    run = lock(run.model_copy(update={"task": CausalLM(kind="causal-lm", form="text")}), hash_model(base))
    run = run.model_copy(update={"task": run.task.model_copy(update={"max_length": 32})})
    model = warm_model(run, CPU)
    export_adapter(tmp_path / "adapter", run, model, random_state(model), make_card(run))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))
    assert {name: merged[name] for name in ("attention_dropout", "use_cache")} == {
        "attention_dropout": 0.125,
        "use_cache": True,
    }


@pytest.mark.parametrize(("quantization", "stored"), [("int8", torch.int8), ("nf4", torch.uint8)])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_quantised_merge_computes_nearly_the_same(
    make_run: MakeRun,
    family: str,
    quantization: Quantization,
    stored: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Linear layers are stored in few bits; a head of the base's own is not; the folder loads in transformers alone."""
    # bitsandbytes packs blocks of 64 weights of a row on a CPU.
    wide = {"hidden_size": 64, "intermediate_size": 64}
    monkeypatch.setitem(families.SETTINGS, family, {**families.SETTINGS[family], **wide})
    base = save_tiny(family, tmp_path / "base")
    run = with_targets(make_run(model={"base": str(base)}, adapter={"targets": "auto"}), base)
    if family == "llama":
        run = run.model_copy(update={"task": CausalLM(kind="causal-lm", form="text", max_length=32)})
    else:
        run = run.model_copy(update={"task": run.task.model_copy(update={"pooling": "native"})})
    run = lock(run, hash_model(base))
    model = warm_model(run, CPU)
    export_adapter(tmp_path / "adapter", run, model, random_state(model), make_card(run))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merge_adapter(tmp_path / "adapter", tmp_path / "few", quantization=quantization)
    few, whole = (run.task.auto_class().from_pretrained(tmp_path / name).eval() for name in ("few", "merged"))
    dtypes = {name: value.dtype for name, value in few.state_dict().items() if value.ndim == 2 or stored == value.dtype}
    assert stored in {dtypes[name] for name in dtypes if "layer" in name}
    heads = {name: value for name, value in dtypes.items() if name.startswith(("classifier", "lm_head"))}
    assert heads
    assert set(heads.values()) == {torch.float32}
    ids = torch.randint(5, 50, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = few(input_ids=ids).logits, whole(input_ids=ids).logits
    error = float((ours - theirs).norm() / theirs.norm())
    assert 0 < error < 0.25
    card = (tmp_path / "few" / "README.md").read_text(encoding="utf-8")
    assert "transformers, bitsandbytes and safetensors" in card
    assert f"bits ({quantization}) at the end. All scores above are from before that." in card


def test_a_quantised_merge_without_bitsandbytes_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.common.model.quantization.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"--quantization nf4 needs bitsandbytes; pip install '\.\[quantization\]' in a checkout"
    ):
        merge_adapter(tmp_path / "adapter", tmp_path / "new", quantization="nf4")


def test_a_merge_that_fails_leaves_nothing_behind(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hidden folder would hold the whole base."""
    base = save_tiny("bert", tmp_path / "base")
    run = lock(with_targets(make_run(model={"base": str(base)}, adapter={"targets": "auto"}), base), hash_model(base))
    model = warm_model(run, CPU)
    export_adapter(tmp_path / "adapter", run, model, random_state(model), make_card(run))

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("confide.common.export.merge._card", full)
    with pytest.raises(OSError, match="No space left"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]
