"""A finished adapter merged into its base: a plain transformers folder, which needs neither PEFT nor Confide."""

import shutil
from pathlib import Path
from typing import Any

import transformers

from confide.common.errors import InputError
from confide.common.export.load import Found, find_adapter, load_for_merging
from confide.common.export.personal import require_shareable
from confide.common.model.base_models import loading
from confide.common.protocol.asks import CARD_FILE, HEAD_FILE, RUN_FILE

# The lines of a model card's program that lay an adapter over its base, and what stands there for a merged model.
_PROGRAM = {
    "library_name: peft\n": "library_name: transformers\n",
    "needs torch, transformers, peft and safetensors": "needs torch, transformers and safetensors",
    "`python predict.py ADAPTER_FOLDER BASE_MODEL < texts.txt`": "`python predict.py MODEL_FOLDER < texts.txt`",
    "from peft import PeftModel\n": "",
    "adapter, base = sys.argv[1:3]\n": "base = adapter = sys.argv[1]\n",
}


def merge_adapter(source: Path, folder: Path, base: str | None = None) -> None:
    """Write the base model with a finished adapter in its weights; a reader sees the whole folder or none of it.

    The weights are merged in float32 and written in the precision of the base's own files. A head of ours stays a file
    of its own beside them, which the model card's program reads.

    Args:
        source: an exported adapter, or a run's folder that holds one.
        folder: to make.
        base: the base model on this machine, if it is not the one that the run names.

    Raises:
        InputError: the folder exists, there is no adapter or no base model that fits, or the adapter is a personalised
            one.
    """
    if folder.exists():
        raise InputError(f"--merge {folder}: exists already, must be a new folder; name another, or remove it")
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
    merged.to(config.dtype).save_pretrained(temporary)
    model.tokenizer.save_pretrained(temporary)
    for name in (HEAD_FILE, RUN_FILE):
        if (found.folder / name).is_file():
            shutil.copy(found.folder / name, temporary)
    (temporary / CARD_FILE).write_text(_card(found), encoding="utf-8")
    temporary.rename(folder)


def _card(found: Found) -> str:
    """Return the adapter's model card with a program for the merged model."""
    text = (found.folder / CARD_FILE).read_text(encoding="utf-8")
    for before, after in {**_PROGRAM, found.run.adapter.program(found.run.task): "model = model.eval()"}.items():
        text = text.replace(before, after)
    return text
