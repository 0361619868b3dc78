"""Families of base models: the layers that get an adapter where a run names none."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.methods.inserted import LINEAR, stacks
from confide.common.methods.lora import Lora
from confide.common.model.base_files import CONFIG
from confide.common.model.base_models import loading

_QUERY_VALUE = {
    ("query", "value"): ("bert", "roberta", "xlm-roberta", "camembert", "electra", "albert"),
    ("q_lin", "v_lin"): ("distilbert",),
    # DeBERTa's query and key projections are also applied to positions, which belong to no example.
    ("value_proj",): ("deberta-v2",),
    ("Wqkv",): ("modernbert",),
    ("q", "v"): ("mpnet", "t5", "mt5", "longt5", "umt5"),
    ("c_attn",): ("gpt2",),
    ("query_key_value",): ("gpt_neox", "bloom", "falcon"),
    ("qkv_proj",): ("phi3",),
    ("q_proj", "v_proj"): (
        *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "gemma", "gemma2", "gemma3_text"),
        *("phi", "smollm3", "granite", "olmo", "olmo2", "cohere", "cohere2", "opt", "gptj", "stablelm", "starcoder2"),
        *("bart", "mbart", "marian", "pegasus", "m2m_100", "blenderbot"),
    ),
}
TARGETS = {family: targets for targets, families in _QUERY_VALUE.items() for family in families}


def with_targets(run: RunConfig, folder: Path) -> RunConfig:
    """Return a run whose ``adapter.targets`` are names: where it says "auto", those of the base's family.

    A run is locked with them. So institutions with other versions of Confide train the same layers.

    Args:
        run: any.
        folder: of its base model.

    Raises:
        InputError: the family is not known.
    """
    if not isinstance(run.adapter, Lora) or not run.adapter.needs_targets:
        return run
    if run.adapter.targets == "all-linear":
        return _with(run, all_linear(run, folder))
    try:
        family = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{folder / CONFIG}: not JSON; copy the model again") from None
    if family not in TARGETS:
        raise InputError(
            f"model.base = {run.model.base!r}: adapter.targets = 'auto' does not know models of type {family!r}; name "
            "the linear layers to adapt, as in targets = ['q_proj', 'v_proj']"
        )
    return _with(run, TARGETS[family])


def all_linear(run: RunConfig, folder: Path) -> tuple[str, ...]:
    """Return the names of all linear layers in a base's blocks, as each is called within its block.

    DeBERTa's projections of queries and keys are left out: they read positions too, which belong to no example.
    """
    with loading(folder) as visible, torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(visible, trust_remote_code=False, local_files_only=True)
        require_sort(run, config)
        base = run.task.auto_class().from_config(config, trust_remote_code=False, attn_implementation="eager")
    shared = {"query_proj", "key_proj"} if config.model_type == "deberta-v2" else set()
    names = [
        name
        for stack in stacks(base)
        for layer in stack
        for name, part in layer.named_modules()
        if isinstance(part, LINEAR) and name.rpartition(".")[2] not in shared
    ]
    return tuple(dict.fromkeys(names))


def require_sort(run: RunConfig, config: Any) -> None:
    """Refuse a base of a sort that cannot do the kind of task, before its weights are read.

    Args:
        run: any.
        config: of its base model, as transformers reads it.

    Raises:
        InputError: the kind needs another sort of base.
    """
    known = getattr(run.task.auto_class(), "_model_mapping", None)  # transformers has no public name for it
    if known is not None and type(config) not in known:
        raise InputError(
            f"model.base = {run.model.base!r} is of type {config.model_type!r}, which cannot do task.kind = "
            f"{run.task.kind!r}: that needs {run.task.base_wanted()}; use {run.task.head_setting()}"
        )


def _with(run: RunConfig, targets: tuple[str, ...]) -> RunConfig:
    return run.model_copy(update={"adapter": run.adapter.model_copy(update={"targets": targets})})
