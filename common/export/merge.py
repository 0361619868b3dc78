"""A finished adapter merged into its base: a plain transformers folder, which needs neither PEFT nor Confide."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from confide.common.config.run import RunConfig
from confide.common.config.sections import Quantization
from confide.common.errors import InputError
from confide.common.export.load import Found, find_adapter, load_for_merging
from confide.common.export.personal import require_shareable
from confide.common.model.base_models import loading
from confide.common.model.quantization import settings_of
from confide.common.protocol.asks import CARD_FILE, HEAD_FILE, RUN_FILE

# The lines of a model card's program that lay an adapter over its base, and what stands there for a merged model.
_PROGRAM = {
    "library_name: peft\n": "library_name: transformers\n",
    "needs torch, transformers, peft and safetensors": "needs torch, transformers and safetensors",
    "`python predict.py ADAPTER_FOLDER BASE_MODEL < texts.txt`": "`python predict.py MODEL_FOLDER < texts.txt`",
    "from peft import PeftModel\n": "",
    "adapter, base = sys.argv[1:3]\n": "base = adapter = sys.argv[1]\n",
}


def merge_adapter(source: Path, folder: Path, base: str | None = None, quantization: Quantization = "none") -> None:
    """Write the base model with a finished adapter in its weights; a reader sees the whole folder or none of it.

    The weights are merged in float32 and written in the precision of the base's own files, or in eight or four bits. A
    head is never quantised. One of ours stays a file of its own beside them, which the model card's program reads.

    Args:
        source: an exported adapter, or a run's folder that holds one.
        folder: to make.
        base: the base model on this machine, if it is not the one that the run names.
        quantization: of the linear layers, by bitsandbytes; "int8" takes eight bits and "nf4" four.

    Raises:
        InputError: the folder exists, there is no adapter or no base model that fits, the adapter is a personalised
            one, or bitsandbytes is not installed.
    """
    if folder.exists():
        raise InputError(f"--merge {folder}: exists already, must be a new folder; name another, or remove it")
    if quantization != "none":
        settings_of(quantization, f"--quantization {quantization}", torch.float32)  # first: merging takes minutes
    found = find_adapter(source, base)
    require_shareable(found.folder)
    run, model = load_for_merging(found)
    encoder: Any = model.module.encoder
    merged = run.adapter.merged(encoder)
    with loading(found.base) as visible:
        config = transformers.AutoConfig.from_pretrained(
            visible, trust_remote_code=False, local_files_only=True, **run.task.auto_settings()
        )
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    merged.config = config  # as it is in the base's folder: for training, caches and dropout were off
    try:
        merged.to(config.dtype).save_pretrained(temporary)
        model.tokenizer.save_pretrained(temporary)
        if quantization != "none":
            del model, encoder, merged  # room for the second model
            _quantise(temporary, run, quantization)
        for name in (HEAD_FILE, RUN_FILE):
            if (found.folder / name).is_file():
                shutil.copy(found.folder / name, temporary)
        (temporary / CARD_FILE).write_text(_card(found, quantization), encoding="utf-8")
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # it holds the whole base
        raise


def _quantise(folder: Path, run: RunConfig, quantization: Quantization) -> None:
    """Replace the weights of a merged model by quantised ones, but for a head's, which are few and decide most."""
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    kept = sorted(run.task.head_parts()) or None
    settings = settings_of(quantization, "--quantization", config.dtype, kept)
    model = run.task.auto_class().from_pretrained(
        folder, quantization_config=settings, trust_remote_code=False, local_files_only=True
    )
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()  # shards of other names would stay beside the new ones
    model.save_pretrained(folder)


def _card(found: Found, quantization: Quantization) -> str:
    """Return the adapter's model card with a program for the merged model."""
    text = (found.folder / CARD_FILE).read_text(encoding="utf-8")
    for before, after in {**_PROGRAM, found.run.adapter.program(found.run.task): "model = model.eval()"}.items():
        text = text.replace(before, after)
    if quantization != "none":
        text = text.replace("transformers and safetensors", "transformers, bitsandbytes and safetensors")
        bits = {"int8": "eight", "nf4": "four"}[quantization]
        text += f"\nIts linear layers were put into {bits} bits ({quantization}) at the end. All scores above are from "
        text += "before that.\n"
    return text
