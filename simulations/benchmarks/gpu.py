"""A private step on this machine's GPU, on random weights of real shapes: right, independent, fast, and how large.

    python simulations/benchmarks/gpu.py [--seconds 420] [--out gpu.json]

It needs no network and no downloaded weights. Each case takes the product's own way: a folder with a model is loaded,
its shapes are tried, and a step is taken. A case is cut off after a quarter of the time left, so that the script
ends in time on any card. Without a GPU the same cases run on tiny shapes: this shows that the script works, no more.

error        the largest difference of a per-example gradient from a loop's, in float32, over the largest entry
same bits    the gradient of one row is the same beside three other companies, in the precision of the case
shared       the share of padded lengths whose rows may share a micro-batch after the trial of shapes; it is tried with
             the usual tokens_per_micro_batch, or with two full rows, as every shape of the measured one takes minutes
private      time of a private micro-batch over that of the same one without privacy
peak         share of the card's best rate of a matrix product, in the same precision
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from confide.client.training.trial import tried_shapes
from confide.common.config.run import RunConfig
from confide.common.config.simulation import SpeedSection
from confide.common.config.toml import check
from confide.common.data.batches import Batch, collate
from confide.common.errors import ConfideError
from confide.common.flower import prepare
from confide.common.model.adapter import coordinate_weights, schema
from confide.common.model.devices import choose_device
from confide.common.model.warm_model import WarmModel, forget_models, warm_model
from confide.common.privacy.gradients import per_example_gradients
from confide.common.privacy.step import clipped_gradients
from confide.simulations.benchmarks.inputs.random_models import SHAPES, save_random
from confide.simulations.benchmarks.inputs.texts import PRIVATE
from confide.simulations.benchmarks.time_limit import OutOfTime, at_most


class Case(NamedTuple):
    """One setting to measure.

    Attributes:
        tokens: of a text.
    """

    shape: str
    tokens: int
    precision: str = "bfloat16"
    quantization: str = "none"
    attention: str = "fixed"
    checkpointing: bool = False


CASES = (  # every size in each precision first; the long texts come last
    *(Case("MiniLM", tokens, precision) for tokens in (128, 512) for precision in ("float32", "bfloat16")),
    *(Case(shape, 512, quantization=bits) for shape in ("Llama-1B", "Llama-3B") for bits in ("none", "nf4")),
    *(Case("Llama-1B", tokens, attention=way) for tokens in (128, 512, 2048) for way in ("eager", "fixed")),
    Case("Llama-1B", 2048, checkpointing=True),
    *(Case("Llama-3B", 2048, quantization=bits, checkpointing=True) for bits in ("none", "nf4")),
)


def load(case: Case, folder: Path, device: torch.device) -> WarmModel:
    """Return the model of a case, as a run loads it."""
    causal = SHAPES[case.shape][0] == "llama"
    task = {"kind": "causal-lm", "form": "text"} if causal else {"labels": ["negative", "positive"]}
    content = {
        "study": {"name": "gpu"},
        "model": {"base": str(folder), "quantization": case.quantization},
        "task": {**task, "max_length": case.tokens},
        "privacy": {"noise_multiplier": 1.0},
    }
    speed = {"precision": case.precision, "attention": case.attention, "checkpointing": case.checkpointing}
    forget_models()
    return warm_model(check(RunConfig, content, "gpu.py"), SpeedSection(device=str(device), **speed))  # type: ignore[arg-type]


def batch_of(model: WarmModel, rows: int, tokens: int, first: int = 0) -> Batch:
    """Return made-up texts that fill every row."""
    examples = [model.made_up(0, first + row) for row in range(rows)]
    return collate(examples, tokens, model.pads, model.device)


def loop_error(model: WarmModel, tokens: int) -> float:
    """Return the largest difference of per-example gradients from a loop over rows, over the largest entry."""
    batch = batch_of(model, 3, tokens)
    model.wrapped.enable_hooks()
    together = per_example_gradients(model.wrapped, model.losses, batch)
    model.wrapped.disable_hooks()
    errors = []
    for row in range(3):
        model.module.zero_grad()
        own = {name: value[row : row + 1] for name, value in batch.items()}
        torch.autograd.backward(model.task.losses(model.module, own).sum())
        alone = torch.cat([p.grad.flatten() for p in model.module.parameters() if p.grad is not None])
        errors.append((together[row] - alone).abs().max() / alone.abs().max())
    return float(torch.stack(errors).max())  # Python's max would drop a NaN


def same_bits(model: WarmModel, rows: int, tokens: int) -> bool:
    """Return whether a row's gradient is bit for bit the same beside three other companies of one shape."""
    model.wrapped.enable_hooks()
    found = []
    for company in (0, 100, 200):
        batch = batch_of(model, rows, tokens, company)
        own = batch_of(model, 1, tokens, 1000)
        batch = {name: torch.cat([own[name], value[1:]]) for name, value in batch.items()}
        found.append(per_example_gradients(model.wrapped, model.losses, batch)[0])
    return all(torch.equal(found[0], other) for other in found[1:])


def measure(case: Case, model: WarmModel, budget: int) -> dict[str, Any]:
    """Return the figures of a case; ``budget`` bounds the tokens of its micro-batch."""
    rows = max(1, budget // case.tokens)
    weights_P = coordinate_weights(schema(model.module), 0.5).to(model.device)
    batch = batch_of(model, rows, case.tokens)

    def private() -> None:
        model.wrapped.enable_hooks()
        parts = clipped_gradients(PRIVATE, [(batch, list(range(rows)))], model.wrapped, model.losses, weights_P)
        sum(part.sum(dim=0) for part in parts)

    def plain() -> None:
        model.wrapped.disable_hooks()
        model.module.zero_grad()
        model.task.losses(model.module, batch).mean().backward()  # type: ignore[no-untyped-call]

    pairs = [(_seconds(private, model.device), _seconds(plain, model.device)) for _ in range(6)][1:]
    seconds = statistics.median(own for own, _ in pairs)
    shapes = tried_shapes(model, min(budget, max(SpeedSection().tokens_per_micro_batch, 2 * case.tokens)))
    shared = [max(counts) > 1 for counts in shapes.by_length.values()]
    return {
        **case._asdict(),
        "rows": rows,
        "same_bits": same_bits(model, rows, case.tokens) if rows > 1 else None,
        "shared": round(sum(shared) / len(shared), 2),
        "private_over_plain": round(statistics.median(own / other for own, other in pairs), 3),
        "tokens_per_second": round(rows * case.tokens / seconds),
        "work": step_work(model, rows, case.tokens) / seconds,
    }


def _seconds(action: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def step_work(model: WarmModel, rows: int, tokens: int) -> float:
    """Return FLOP of a step: two for each multiply-add, in the forward pass and in the gradients of inputs."""
    encoder: Any = model.module.encoder
    config = encoder.get_base_model().config
    layers = [
        p for name, p in model.module.named_parameters() if ".layer" in name and p.ndim == 2 and "lora" not in name
    ]
    weights = sum(int(p.numel()) * (2 if p.dtype == torch.uint8 else 1) for p in layers)  # uint8 holds two of four bits
    head = config.hidden_size * config.vocab_size if model.task.longest_answer() else 0
    attention = 2 * config.num_hidden_layers * tokens * config.hidden_size
    return float(4 * rows * tokens * (weights + head + attention))


def matrix_peak(device: torch.device, precision: str, size: int) -> float:
    """Return the best rate of ten products of two square matrices, in FLOP/s."""
    left, right = (torch.ones(size, size, device=device, dtype=getattr(torch, precision)) for _ in range(2))

    def product() -> None:
        torch.matmul(left, right)

    return 2.0 * size**3 / min(_seconds(product, device) for _ in range(10))


def run_cases(seconds: float) -> dict[str, Any]:
    """Return the machine, the figures of each case, and the names of cases for which no time was left."""
    device, began = choose_device("auto"), time.monotonic()
    tiny = device.type == "cpu"
    budget, size = (128, 256) if tiny else (16_384, 8192)
    cases = [case._replace(tokens=32) for case in CASES] if tiny else list(CASES)
    rows: list[dict[str, Any]] = []
    left: list[str] = []
    errors: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="confide-gpu-") as place:
        peaks = {name: matrix_peak(device, name, size) for name in ("float32", "bfloat16")}
        for case in dict.fromkeys(cases):
            try:
                with at_most((seconds - (time.monotonic() - began)) / 4):
                    folder = save_random(case.shape, Path(place) / case.shape, device, tiny=tiny)
                    if case.shape not in errors and case.shape != "Llama-3B":
                        exact = case._replace(precision="float32", tokens=32, attention="eager", checkpointing=False)
                        errors[case.shape] = loop_error(load(exact._replace(quantization="none"), folder, device), 32)
                    if not tiny:
                        torch.cuda.reset_peak_memory_stats(device)
                    found = measure(case, load(case, folder, device), budget)
            except OutOfTime:
                left.append(str(case))
            except (ConfideError, RuntimeError) as error:
                rows.append({**case._asdict(), "failed": str(error).splitlines()[0][:300]})
            else:
                found["peak"] = round(found.pop("work") / peaks[case.precision], 3)
                found["gigabytes"] = None if tiny else round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
                rows.append(found)
                print(json.dumps(found), flush=True)
    card = "no GPU: tiny shapes, no figures" if tiny else torch.cuda.get_device_name(device)
    return {"card": card, "torch": torch.__version__, "errors": errors, "cases": rows, "left_out": left}


def table(facts: dict[str, Any]) -> str:
    """Return the figures as text."""
    names = list(dict.fromkeys(name for row in facts["cases"] for name in row))
    lines = [names, *([str(row.get(name, "")) for name in names] for row in facts["cases"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    shown = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    errors = ", ".join(f"{shape} {error:.1e}" for shape, error in facts["errors"].items())
    return "\n".join(
        [f"{facts['card']}, torch {facts['torch']}; error in float32: {errors}", *shown]
        + [f"left out, no time: {case}" for case in facts["left_out"]]
    )


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=420.0, help="for all cases (420)")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file of the figures (gpu.json)")
    options = parser.parse_args()
    prepare()
    facts = run_cases(options.seconds)
    options.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(table(facts))


if __name__ == "__main__":
    main()
