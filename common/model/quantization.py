"""A frozen base in four or eight bits, by bitsandbytes. The adapter and every gradient stay in float32."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from confide.common.config.run import RunConfig
from confide.common.errors import InputError


def quantization_of(run: RunConfig, compute: torch.dtype) -> Any:
    """Return transformers' quantization settings for a run; None for a base as its files have it.

    Blocks of a weight are quantised, never blocks of a batch. Eight bits use the threshold 0: above it, columns with an
    outlier in any row are taken in sixteen bits for all rows, so that one record would change the others.

    Args:
        run: its `[model]` and `[task]` sections.
        compute: precision of products with a weight of four bits.

    Raises:
        InputError: bitsandbytes is not installed, or the base's own head is to be trained.
    """
    kind = run.model.quantization
    if kind == "none":
        return None
    if run.task.native_head:
        raise InputError(
            f"model.quantization = {kind!r} with task.pooling = 'native': a quantised head cannot be trained; use "
            f"{run.task.head_setting()}"
        )
    return settings_of(kind, f"model.quantization = {kind!r}", compute)


def settings_of(kind: str, setting: str, compute: torch.dtype, kept: Sequence[str] | None = None) -> Any:
    """Return transformers' settings for ``kind``, "int8" or "nf4".

    Args:
        kind: of quantization.
        setting: that asks for it, for the error.
        compute: precision of products with a weight of four bits.
        kept: names of modules that are not quantised; None leaves the choice to transformers (the layer that writes).

    Raises:
        InputError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"{setting} needs bitsandbytes; pip install '.[quantization]' in a checkout of Confide")
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=kept,
    )
