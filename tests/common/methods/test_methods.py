"""The promises that every method keeps: gradients of one row, start as the base, files that PEFT and we read."""

import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun
from peft import PeftModel
from support.cards import make_card
from support.families import BOTH, save_tiny
from support.families import SETTINGS as FAMILIES
from support.kinds import tiny
from support.methods import IN_PEFT, NAMES, PROMPTS, SETTINGS, run_with, task_for
from support.speed import CPU

from confide.common.config.run import RunConfig, lock
from confide.common.data.batches import collate, length, padded_length
from confide.common.errors import InputError
from confide.common.export.load import load_adapter
from confide.common.export.merge import merge_adapter
from confide.common.export.write import export_adapter
from confide.common.methods import is_added
from confide.common.model.adapter import build_module, get_state, schema, set_state
from confide.common.model.base_models import hash_model
from confide.common.model.evaluation import answer
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy.gradients import per_example_gradients
from confide.common.tensors import State

REFUSED = {  # families that cannot do a method
    "prompt-tuning": {*BOTH},
    "p-tuning": {*BOTH},
    "prefix-tuning": {*BOTH, "distilbert", "deberta-v2", "modernbert"},
    "bitfit": {
        "deberta-v2",
        "modernbert",
        "llama",
        "mistral",
        "gemma",
        "gemma2",
        "gemma3_text",
        "phi3",
        "mixtral",
        "qwen3",
        "t5",
    },
    "norms": {"deberta-v2"},
    "bottleneck": {"mixtral"},
}
MERGED = [name for name in SETTINGS if name not in {*PROMPTS, "bottleneck"}]


# Two families in every run, an encoder and a decoder; all in `make families`.
_USUAL = ("bert", "llama")
_OUTSIDE_PEFT = [name for name in SETTINGS if name not in IN_PEFT]  # whose programs are our own lines, not PEFT's
_SOME = [
    name if name in {"lora", *_OUTSIDE_PEFT} else pytest.param(name, marks=pytest.mark.families) for name in SETTINGS
]
_EACH = [name if name in _USUAL else pytest.param(name, marks=pytest.mark.families) for name in FAMILIES]


@pytest.fixture(scope="module", params=_EACH)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(family, tmp_path_factory.mktemp("family") / family)


def _cannot(method: str, family: str) -> bool:
    return (method == "head" and family in BOTH) or family in REFUSED.get(method, set())


def _moved(model: WarmModel, scale: float = 0.3) -> State:
    """A state some way from the start, in every tensor."""
    random = np.random.Generator(np.random.PCG64(1))
    start = get_state(model.module)
    return {name: (v + scale * random.standard_normal(v.shape)).astype(np.float32) for name, v in start.items()}


@pytest.mark.parametrize("method", SETTINGS)
def test_gradients_are_those_of_one_row_at_a_time(method: str, make_run: MakeRun, family: str, folder: Path) -> None:
    if _cannot(method, family):
        return
    model = warm_model(run_with(make_run, method, folder, task_for(method, family)), CPU)
    set_state(model.module, _moved(model))
    examples = [model.task.examples(model.task.made_up(0, n, 5 + 3 * n), model.tokenizer)[0] for n in range(3)]
    padded = padded_length(max(map(length, examples)))
    model.wrapped.enable_hooks()
    together = per_example_gradients(model.wrapped, model.losses, collate(examples, padded, model.pads, model.device))
    for row, example in enumerate(examples):
        alone = _gradient(model, collate([example], padded, model.pads, model.device))
        assert alone.abs().max() > 0
        torch.testing.assert_close(together[row], alone, rtol=1e-3, atol=1e-5 * float(alone.abs().max()))


def _gradient(model: WarmModel, batch: Any) -> torch.Tensor:
    """The gradient of one row by torch alone."""
    model.module.zero_grad()
    model.wrapped.disable_hooks()
    model.losses(batch).sum().backward()
    model.wrapped.enable_hooks()
    return torch.cat([p.grad.flatten() for p in model.module.parameters() if p.requires_grad])


@pytest.mark.parametrize("method", REFUSED)
def test_a_method_that_a_family_cannot_do_is_refused(method: str, make_run: MakeRun, family: str, folder: Path) -> None:
    if family not in REFUSED[method]:
        return
    with pytest.raises(InputError, match=r"; use (another|other|method|base)"):
        warm_model(run_with(make_run, method, folder, task_for(method, family)), CPU)


@pytest.mark.parametrize("method", SETTINGS)
def test_a_method_begins_as_the_base_is(method: str, make_run: MakeRun, base_folder: Path) -> None:
    """A prompt changes what the base reads; of the others each starts with the base's own states."""
    task = task_for(method, "bert")
    model = warm_model(run_with(make_run, method, base_folder, task), CPU)
    ids = torch.tensor([[5, 6, 7, 8]])
    base = task_base(base_folder)
    with torch.no_grad():
        ours = model.module.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        theirs = base(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-6) == (method not in PROMPTS)


def task_base(folder: Path) -> Any:
    import transformers

    return transformers.AutoModel.from_pretrained(folder).eval()


@pytest.mark.filterwarnings("ignore:Unsupported layer type")  # PEFT warns of every norm
@pytest.mark.parametrize("method", IN_PEFT)
def test_plain_peft_gives_the_same_states(
    method: str, make_run: MakeRun, family: str, folder: Path, tmp_path: Path
) -> None:
    if _cannot(method, family):
        return
    run, model = _exported(make_run, method, folder, task_for(method, family), tmp_path / "adapter")
    base = run.task.auto_class().from_pretrained(folder, attn_implementation="eager").eval()
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    batch = collate(model.task.examples(model.task.made_up(0, 1, 9), model.tokenizer), 32, model.pads, model.device)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if family in BOTH:
        inputs["decoder_input_ids"] = batch["input_ids"]
    model.wrapped.disable_hooks()
    with torch.inference_mode():
        expected, found = model.module.encoder(**inputs), theirs(**inputs)
    name = "last_hidden_state" if run.task.own_head else "logits"
    expected, found = expected[name], found[name]
    cut = found.shape[1] - expected.shape[1]
    assert cut == (3 if method in {"prompt-tuning", "p-tuning"} else 0)
    seen = batch["attention_mask"][0].bool()
    torch.testing.assert_close(found[:, cut:][0][seen], expected[0][seen], rtol=1e-4, atol=1e-4)


def _exported(
    make_run: MakeRun, method: str, folder: Path, task: dict[str, Any], to: Path
) -> tuple[RunConfig, WarmModel]:
    run = lock(run_with(make_run, method, folder, task), hash_model(folder))
    model = warm_model(run, CPU)
    state = _moved(model)
    export_adapter(to, run, model, state, make_card(run))
    set_state(model.module, state)
    return run, model


@pytest.mark.parametrize("method", SETTINGS)
def test_a_loaded_adapter_holds_the_exported_state(
    method: str, make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    _, model = _exported(make_run, method, base_folder, task_for(method, "bert"), tmp_path / "adapter")
    loaded = get_state(load_adapter(tmp_path / "adapter")[1].module)
    state = get_state(model.module)
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        if name.startswith("head."):
            continue  # its constants are in its weights: `test_write` compares those
        np.testing.assert_allclose(loaded[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize("method", _SOME)
def test_the_cards_program_predicts_as_we_do(
    method: str,
    make_run: MakeRun,
    base_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also beside the base's own head, which lies in the same file."""
    for pooling in ("mean", "native"):
        if pooling == "native" and method in PROMPTS:
            continue
        task = {**task_for(method, "bert"), "pooling": pooling}
        _, model = _exported(make_run, method, base_folder, task, tmp_path / pooling)
        lines = ["the film was good", "very bad and long", "short", "the the the not loved", "hated", "good good"]
        expected = answer(model, [{"text": line} for line in lines])
        folders = [(tmp_path / pooling, base_folder)]
        if method in MERGED:
            merge_adapter(tmp_path / pooling, tmp_path / f"{pooling} merged")
            folders.append((tmp_path / f"{pooling} merged",))  # type: ignore[arg-type]
        for arguments in folders:
            program = re.findall(r"(?s)```python\n(.*?)```", (arguments[0] / "README.md").read_text(encoding="utf-8"))[
                0
            ]
            assert "confide" not in program
            assert ("peft" in program) == (method in IN_PEFT and len(arguments) == 2)
            monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
            monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
            capsys.readouterr()
            exec(compile(program, "predict.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own card
            assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("method", [name for name in SETTINGS if name not in MERGED])
def test_what_no_weight_can_hold_is_not_merged(
    method: str, make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    _exported(make_run, method, base_folder, task_for(method, "bert"), tmp_path / "adapter")
    with pytest.raises(InputError, match="nothing can be merged; use the adapter beside its base"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.filterwarnings("ignore:Position ids are not supported")  # PEFT drops them; ours begin after the prompt
@pytest.mark.parametrize("method", PROMPTS)
def test_a_base_with_virtual_tokens_writes_what_peft_writes(method: str, make_run: MakeRun, tmp_path: Path) -> None:
    """With a cache, where virtual tokens lie in it, and without; and filled on the left beside a longer text."""
    for family in ("gpt2", "llama", "qwen3"):
        folder = save_tiny(family, tmp_path / family)
        run, model = _exported(make_run, method, folder, task_for(method, family), tmp_path / f"{family} adapter")
        base = run.task.auto_class().from_pretrained(folder, attn_implementation="eager").eval()
        theirs = PeftModel.from_pretrained(base, tmp_path / f"{family} adapter").eval()
        model.wrapped.disable_hooks()
        long, short = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[9, 7]])
        alone = []
        for ids in (long, short):
            written = theirs.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **_GREEDY)
            for cache in (True, False):
                assert _written(model, ids, torch.ones_like(ids), cache) == written.tolist()
            alone += written[:, ids.shape[1] :].tolist()
        both = torch.cat([long, torch.nn.functional.pad(short, (3, 0))])
        mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
        assert [row[5:] for row in _written(model, both, mask, True)] == alone


_GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


def _written(model: WarmModel, ids: torch.Tensor, mask: torch.Tensor, cache: bool) -> Any:
    base: Any = model.module.base
    return base.generate(input_ids=ids, attention_mask=mask, use_cache=cache, pad_token_id=0, **_GREEDY).tolist()


@pytest.mark.parametrize("method", SETTINGS)
def test_names_of_what_is_added_are_the_methods_own(method: str, make_run: MakeRun, base_folder: Path) -> None:
    run = run_with(make_run, method, base_folder, {**task_for(method, "bert"), "pooling": "mean"})
    module = build_module(run, base_folder, torch.device("meta"))
    added = [name for name in schema(module) if is_added(name)]
    assert {name for name in schema(module) if not is_added(name)} == {"head.weight", "head.bias"}
    assert all(any(marker in name for marker in run.adapter.markers) for name in added)
    assert bool(added) == (method != "head")


@pytest.mark.parametrize("method", ["ia3", "bitfit", "norms", "bottleneck"])
def test_top_layers_alone_are_changed(method: str, make_run: MakeRun, base_folder: Path) -> None:
    run = run_with(make_run, method, base_folder, task_for(method, "bert"))
    top = run.model_copy(update={"adapter": run.adapter.model_copy(update={"layers": "top:1"})})
    names = [name for name in schema(build_module(top, base_folder, torch.device("meta"))) if is_added(name)]
    assert names
    assert all(".layer.1." in name for name in names)
    more = run.model_copy(update={"adapter": run.adapter.model_copy(update={"layers": "top:3"})})
    with pytest.raises(InputError, match=r"layers = 'top:3', but the base has 2 layers; use 'all'"):
        build_module(more, base_folder, torch.device("meta"))


@pytest.mark.parametrize("method", PROMPTS)
def test_virtual_tokens_need_places(method: str, make_run: MakeRun, base_folder: Path) -> None:
    task = {**task_for(method, "bert"), "max_length": 126}
    with pytest.raises(InputError, match="reads 128 tokens, 3 of them virtual"):
        warm_model(run_with(make_run, method, base_folder, task), CPU)


@pytest.mark.parametrize(
    ("family", "pooling", "words"),
    [("t5", None, "read a source and write a target"), ("bert", "native", "the base's own head")],
)
def test_virtual_tokens_are_refused_before_a_target_and_an_own_head(
    family: str, pooling: str | None, words: str, make_run: MakeRun
) -> None:
    folder = tiny(family)
    for method in PROMPTS:
        task = task_for(method, family) | ({"pooling": pooling} if pooling else {})
        with pytest.raises(InputError, match=f"adapter.method = '{method}': .*{words}.*; use (method|task.pooling) = "):
            build_module(run_with(make_run, method, folder, task), folder, torch.device("cpu"))


def test_other_ranks_are_those_of_the_layers_that_are_named(make_run: MakeRun, family: str, folder: Path) -> None:
    run = run_with(make_run, "lora, ranks", folder, task_for("lora", family))
    module = build_module(run, folder, torch.device("meta"))
    shapes = schema(module)
    ranks = {name: shape[1] for name, shape in shapes.items() if "lora_B" in name}
    [second] = run.adapter.model_dump()["ranks"]
    assert ranks == {name: 4 if f".{second}." in f".{name}" else 2 for name in ranks}
    assert set(ranks.values()) == {2, 4}
    scales = {part.scaling["default"] for part in module.modules() if hasattr(part, "lora_B")}
    assert sorted(scales) == pytest.approx([2**0.5, 2.0]), "the root of each rank"
    other = run.adapter.model_copy(update={"ranks": {"layer.7": 4}})
    with pytest.raises(InputError, match=r"adapter.ranks names 'layer.7', which no adapted layer"):
        build_module(run.model_copy(update={"adapter": other}), folder, torch.device("meta"))


def test_a_rank_above_a_layers_inputs_is_refused(make_run: MakeRun, base_folder: Path) -> None:
    with pytest.raises(InputError, match=r"adapter.rank = 64 is more than the 32 inputs of encoder.layer.0"):
        warm_model(make_run(adapter={"rank": 64}), CPU)


@pytest.mark.parametrize(("method", "kind"), [("prefix-tuning", "text-classification"), ("lora", "preference")])
def test_what_cannot_compute_layers_again_is_refused(
    method: str, kind: str, make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    folder = save_tiny("llama", tmp_path / "llama") if kind == "preference" else base_folder
    task = {"kind": "preference", "max_length": 32} if kind == "preference" else task_for(method, "bert")
    run = run_with(make_run, method, folder, task)
    with pytest.raises(InputError, match=f"adapter.method = '{method}' with task.kind = '{kind}'"):
        warm_model(run, CPU.model_copy(update={"checkpointing": True}))


def test_a_kind_without_a_head_cannot_train_the_head_alone(make_run: MakeRun, tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "llama")
    with pytest.raises(InputError, match=r"task\.kind = 'causal-lm' trains no head"):
        warm_model(run_with(make_run, "head", folder, task_for("lora", "llama")), CPU)


def test_every_method_is_here() -> None:
    assert {name.partition(",")[0] for name in SETTINGS} == NAMES


def test_a_section_without_a_method_is_loras(make_run: MakeRun) -> None:
    """Runs that were locked before there were others keep their hash."""
    run = make_run(adapter={"rank": 4})
    assert run.adapter.method == "lora"
    assert run.model_dump(mode="json")["adapter"] == {
        "method": "lora",
        "rank": 4,
        "targets": ["query", "value"],
        "train": "B",
        "layers": "all",
    }
    with pytest.raises(InputError, match="adapter"):
        make_run(adapter={"method": "dora"})
