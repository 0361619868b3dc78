"""The finished adapter as a folder that PEFT loads without us, with its model card; and the way back.

adapter_config.json, adapter_model.safetensors   what PEFT's own save_pretrained writes
head.safetensors                                 "weight" and "bias" of the head, where it is not the base model's own
run.json                                         the locked run as canonical JSON: its hash is the `plan_sha256`
README.md                                        the model card; its first program predicts with public libraries alone
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined
from safetensors import SafetensorError
from safetensors.numpy import load, save_file
from torch import nn

from confide.common.adapter import build_module, public_name, set_state
from confide.common.configuration import check
from confide.common.devices import choose_device
from confide.common.errors import InputError
from confide.common.gate import RECEIVED_NORM_BOUND, GateError, State, dump_state, load_state
from confide.common.models import find_model, hash_model, load_tokenizer, loading
from confide.common.privacy.gradients import wrap
from confide.common.run_config import RunConfig
from confide.common.warm_model import WarmModel

_CONFIG, _WEIGHTS, _HEAD, _RUN = "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "run.json"


def export_adapter(folder: Path, run: RunConfig, model: WarmModel, state: State, card: dict[str, Any]) -> None:
    """Write an adapter and its model card; a reader sees the whole folder or none of it.

    Args:
        folder: to make; one that is already there is replaced.
        run: locked.
        model: of that run; afterwards it holds ``state``.
        state: the adapter to release.
        card: what comes from the results: ``status``, ``simulated``, ``num_rounds`` (done),
            ``accuracy`` (`Accuracy.as_json`, or None), ``institutions`` (each ``name``, ``epsilon`` or None,
            ``num_steps``, ``declared_units``), ``plan`` (fields of the `PrivacyPlan`, or ``{"no_privacy": True}``),
            ``statement`` (`statement.statement` of that plan; None or absent without), ``versions``
            (`flower.versions`).
    """
    text = render_card(run, card)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, replaced = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.old")
    for leftover in (temporary, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    set_state(model.module, state)
    adapted: Any = model.module.encoder if _has_own_head(run) else model.module
    # "auto" would ask the hub for the base model's vocabulary.
    adapted.save_pretrained(str(temporary), save_embedding_layers=False)
    (temporary / _CONFIG).write_text(portable_config(adapted, run), encoding="utf-8")
    if _has_own_head(run):
        head = {name: state[f"head.{name}"] for name in ("weight", "bias")}
        save_file(head, temporary / _HEAD, metadata={"format": "pt"})
    (temporary / _RUN).write_text(run.canonical_json(), encoding="utf-8")
    (temporary / "README.md").write_text(text, encoding="utf-8")
    if folder.exists():
        folder.rename(replaced)
    temporary.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _has_own_head(run: RunConfig) -> bool:
    return run.task.pooling == "mean"


def portable_config(adapted: Any, run: RunConfig) -> str:
    """What PEFT's save_pretrained writes, without this machine's folders and with sets in one order.

    The same bytes wherever and whenever it is made, also of a model on the meta device.
    """
    kept, base = adapted.peft_config["default"], type(adapted.get_base_model())
    mapping = {"base_model_class": base.__name__, "parent_library": base.__module__} if kept.task_type is None else None
    config = {**kept.to_dict(), "inference_mode": True, "auto_mapping": mapping}
    config["base_model_name_or_path"] = public_base(run.model.base)
    for key, value in config.items():
        if isinstance(value, list | set) and key != "layers_to_transform":
            config[key] = sorted(value)
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def public_base(base: str) -> str:
    """A base model's name as others may see it: of a folder only its own name.

    >>> public_base("/home/mary/models/minilm"), public_base("organisation/name")
    ('minilm', 'organisation/name')
    """
    path = Path(base)
    return path.name if path.is_absolute() or base[0] in "~." else base


def render_card(run: RunConfig, card: dict[str, Any]) -> str:
    """The model card of a locked run as Markdown; ``card`` as in `export_adapter`."""
    environment = Environment(  # noqa: S701 - Markdown, not HTML; `plain` escapes what others wrote
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(plain=_plain, number=_number, python=repr)
    template = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    private = "no_privacy" not in card["plan"]
    return environment.from_string(template).render(
        run=run, card=card, base=public_base(run.model.base), plan=card["plan"] if private else None
    )


def _plain(text: str) -> str:
    r"""Text on one line that Markdown and HTML read as it is.

    >>> _plain("<b>\n|")
    '\\<b\\> \\|'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|!&])", r"\\\1", " ".join(text.split()))


def _number(value: float) -> str:
    """A number at its shortest.

    >>> _number(1e-05), _number(2000)
    ('1e-5', '2000')
    """
    return re.sub(r"e([+-])0", r"e\1", f"{value:.10g}")


def load_adapter(folder: Path, base: str | None = None) -> tuple[RunConfig, WarmModel]:
    """An exported adapter, ready to predict, on the fastest device of this machine.

    Args:
        folder: an exported adapter, or a run's folder that holds one as ``adapter/``.
        base: where the base model is here, if not where the run says; its hash must be the run's.

    Returns:
        The run (with ``base`` in it) and a model of its own: nothing else shares its weights.

    Raises:
        InputError: no adapter there, a file of it that does not fit, or another base model.
    """
    folder, run = _read_run(folder)
    if base is not None:
        run = run.model_copy(update={"model": run.model.model_copy(update={"base": base})})
    # Institutions keep base models beside models/STUDY/RUN.
    places: list[Path | None] = [None] if base else [None, folder.resolve().parent.parent]
    base_folder = _find_base(run, places, folder / _RUN)
    device = choose_device("auto")
    module = build_module(run, base_folder, device)
    _write_all(module, folder, run)
    with loading(base_folder) as visible:
        tokenizer = load_tokenizer(visible)
    return run, WarmModel(module, wrap(module), tokenizer, run.task, device)


def _find_base(run: RunConfig, places: list[Path | None], named_by: Path) -> Path:
    """The first base model of a run's name that is also the one of its hash; the first error where there is none."""
    wrong: InputError | None = None
    for models in places:
        try:
            base_folder = find_model(run.model.base, models)
        except InputError as error:
            wrong = wrong or error
            continue
        found = hash_model(base_folder)
        if run.model.sha256 in (None, found):
            return base_folder
        wrong = wrong or InputError(
            f"base model {run.model.base!r} hashes to {found}, but {named_by} names {run.model.sha256}; "
            "the adapter fits that model only: install it, or name its folder with --base"
        )
    raise wrong or InputError(f"{named_by}: no base model")


def _read_run(folder: Path) -> tuple[Path, RunConfig]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name an exported adapter or a run's folder")
    places = [place for place in (folder, folder / "adapter") if (place / _RUN).is_file()]
    if not places:
        raise InputError(
            f"{folder}: holds neither {_RUN} nor adapter/{_RUN}, must be an exported adapter or the folder of a "
            "finished run; a run writes it at its end"
        )
    path = places[0] / _RUN
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path}: not JSON; copy the folder again from its run") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: a JSON {type(content).__name__}, must be an object; copy the folder again from its run"
        )
    return places[0], check(RunConfig, content, str(path))


def _write_all(module: nn.Module, folder: Path, run: RunConfig) -> None:
    """Put the folder's tensors into a module: the trained ones, and the frozen A (a later numpy may draw another)."""
    parameters = {
        public_name(name): value for name, value in module.named_parameters() if value.requires_grad or "lora_" in name
    }
    tensors = {public_name(name): value for name, value in _read_tensors(folder / _WEIGHTS).items()}
    if _has_own_head(run):
        tensors |= {f"head.{name}": value for name, value in _read_tensors(folder / _HEAD).items()}
    try:
        shapes = {name: tuple(value.shape) for name, value in parameters.items()}
        state = load_state(dump_state(tensors), shapes, RECEIVED_NORM_BOUND)
    except GateError as error:
        raise InputError(f"{folder}: does not fit its {_RUN}: {error}; copy the folder again from its run") from None
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(state[name]))


def _read_tensors(path: Path) -> State:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; copy the folder again from its run") from None
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not a safetensors file of float32; copy the folder again from its run") from None
