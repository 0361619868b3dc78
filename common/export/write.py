"""The finished adapter as a folder that PEFT loads without us, with its model card.

adapter_model.safetensors                        what the method trained, in PEFT's form where PEFT has the method
adapter_config.json                              PEFT's configuration, if so; else the card's program loads the adapter
head.safetensors                                 the head ("weight" and "bias"), if it is not the base model's own
run.json                                         the locked run as canonical JSON: its hash is the `run_sha256`
README.md                                        the model card; its first program predicts with public libraries alone
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from confide.common.config.run import RunConfig
from confide.common.export.card import public_base, render_card
from confide.common.methods import is_added
from confide.common.model.adapter import public_name, set_state
from confide.common.model.warm_model import WarmModel
from confide.common.protocol.asks import CARD_FILE, CONFIG_FILE, HEAD_FILE, RUN_FILE, WEIGHTS_FILE
from confide.common.tensors import State

FIELDS = {"format": "pt"}  # metadata of a safetensors file


def export_adapter(folder: Path, run: RunConfig, model: WarmModel, state: State, card: dict[str, Any]) -> None:
    """Write an adapter and its model card; a reader sees the whole folder or none of it.

    Args:
        folder: to make; an existing one is replaced.
        run: locked.
        model: of that run; afterwards it holds ``state``.
        state: the adapter to release.
        card: facts from the results: ``status``, ``simulated``, ``one_machine`` (True for real institutions that all
            ran on one; may be absent), ``num_rounds`` (done),
            ``metric``, ``score`` (`Scores.as_json`, or None), ``institutions`` (each ``name``, ``epsilon`` or None,
            ``num_steps``, ``declared_units``), ``plan`` (fields of the `PrivacyPlan`, or ``{"no_privacy": True}``),
            ``statement`` (`statement.statement` of that plan; None or absent without), ``versions``
            (`flower.versions`).
    """
    write_adapter(folder, run, model, state, render_card(run, card))


def write_adapter(
    folder: Path, run: RunConfig, model: WarmModel, state: State, card: str, fields: Mapping[str, str] | None = None
) -> None:
    """Write an adapter with any model card, as `export_adapter` does.

    Args:
        folder: to make; an existing one is replaced.
        run: locked.
        model: of that run; afterwards it holds ``state``.
        state: the adapter.
        card: Markdown.
        fields: metadata of both safetensors files.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, replaced = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.old")
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)  # a crash came between the two renames below: it is the only copy
    for leftover in (temporary, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    set_state(model.module, state)
    module: Any = model.module
    temporary.mkdir()
    metadata = {**FIELDS, **(fields or {})}
    tensors = {name: value.contiguous() for name, value in file_tensors(module, run).items()}
    save_file(tensors, temporary / WEIGHTS_FILE, metadata=metadata)
    if (config := portable_config(module.encoder, run)) is not None:
        (temporary / CONFIG_FILE).write_text(config, encoding="utf-8")
    if run.task.own_head:
        # On the base's states as they are, so that a reader needs no constants of ours.
        head = {name: value.cpu() for name, value in module.plain().items()}
        save_file(head, temporary / HEAD_FILE, metadata=metadata)
    (temporary / RUN_FILE).write_text(run.canonical_json(), encoding="utf-8")
    (temporary / CARD_FILE).write_text(card, encoding="utf-8")
    if folder.exists():
        folder.rename(replaced)
    temporary.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def file_tensors(module: Any, run: RunConfig) -> dict[str, Tensor]:
    """Return the tensors of an adapter's file, in float32: all that the method adds, and the base's own trained head.

    Args:
        module: of `build_module`; on the meta device only names and shapes count.
        run: of that module.
    """
    tensors = {
        public_name(name): value.detach().cpu() if not value.is_meta else value.detach()
        for name, value in module.named_parameters()
        if is_added(name) or (value.requires_grad and not name.startswith("head."))
    }
    return run.adapter.to_file(module.encoder, tensors)


def portable_config(adapted: Any, run: RunConfig) -> str | None:
    """Return PEFT's configuration, without this machine's folders and with sets in one order; None without one.

    Its bytes are the same on every machine and at every time, also for a model on the meta device.
    """
    kept, base = run.adapter.peft_config(adapted, run.task), type(adapted.get_base_model())
    if kept is None:
        return None
    mapping = {"base_model_class": base.__name__, "parent_library": base.__module__} if kept.task_type is None else None
    config = {**kept.to_dict(), "inference_mode": True, "auto_mapping": mapping}
    config["base_model_name_or_path"] = public_base(run.model.base)
    for key, value in config.items():
        if isinstance(value, list | set) and key != "layers_to_transform":
            config[key] = sorted(value)
    return json.dumps(config, indent=2, sort_keys=True) + "\n"
