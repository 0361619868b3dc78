"""Every method, small, and runs with each on tiny bases."""

import json
from pathlib import Path
from typing import Any, get_args

from conftest import MakeRun
from support.families import BOTH, DECODERS, ENCODERS

from confide.common.config.run import RunConfig, check
from confide.common.methods import METHODS
from confide.common.model.families import with_targets

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "lora, A and B on all linear layers": {"rank": 2, "train": "AB", "targets": "all-linear"},
    "lora, ranks": {"rank": 2, "rank_stabilised": True, "ranks": {"layer.1": 4}},
    "ia3": {},
    "bottleneck": {"width": 4},
    "bitfit": {},
    "norms": {},
    "head": {},
    "prompt-tuning": {"tokens": 3},
    "p-tuning": {"tokens": 3, "width": 8},
    "prefix-tuning": {"tokens": 3},
}
IN_PEFT = [name for name in SETTINGS if name not in {"bottleneck", "bitfit", "head"}]
PROMPTS = ("prompt-tuning", "p-tuning", "prefix-tuning")
NAMES = {get_args(kind.model_fields["method"].annotation)[0] for kind in METHODS}
# The second layer, by family, as `adapter.ranks` names it.
_SECOND = {**dict.fromkeys(ENCODERS, "layer.1"), "modernbert": "layers.1", "gpt2": "h.1", "t5": "block.1"}
_LABELS = {"kind": "text-classification", "labels": ["negative", "positive"], "max_length": 32}


def task_for(method: str, family: str) -> dict[str, Any]:
    """A kind that fits a family and trains something of the method."""
    if family in DECODERS and method != "head":
        return {"kind": "causal-lm", "form": "completion", "max_length": 32, "max_new_tokens": 4}
    return {"kind": "seq2seq", "max_length": 32, "max_new_tokens": 4} if family in BOTH else _LABELS


def run_with(make_run: MakeRun, method: str, folder: Path, task: dict[str, Any]) -> RunConfig:
    """A run that trains a base by a method, with the family's targets and names of layers."""
    adapter = {"method": method.partition(",")[0], **SETTINGS[method]}
    if "ranks" in adapter:
        family = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        adapter["ranks"] = {_SECOND.get(family, "layers.1"): 4}
    content = make_run(model={"base": str(folder)}).model_dump(mode="json", exclude={"adapter", "task", "simulation"})
    return with_targets(check(RunConfig, {**content, "adapter": adapter, "task": task}, "test"), folder)
