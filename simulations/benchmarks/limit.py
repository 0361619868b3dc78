"""The encoder step as a share of the processor's matrix peak, with texts of 128 tokens.

    python simulations/benchmarks/limit.py [--steps 5] [--json]

The peak is the best rate of a large matrix product on this machine, in float32 and in bfloat16; each precision's step
is set against the higher of the two. The step's work counts the multiplications of a forward pass and of the
gradients of its inputs, attention included, and nothing else.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from confide.simulations.benchmarks.inputs.texts import DRAWN, PRIVATE, prepare
from confide.simulations.benchmarks.step import step_seconds

_SIZE, _LENGTH = 2048, 128
_PRODUCTS, _PEAK_SECONDS = 20, 10.0


def matrix_peak(dtype: torch.dtype) -> float:
    """Return the best rate of 20 products of two square matrices, in FLOP/s.

    A processor that emulates bfloat16 takes half a minute for one product of full size. There, fewer and smaller
    products find the rate in some seconds: it hardly depends on the size, for every element costs so much.
    """
    size, until = _SIZE, time.perf_counter() + _PEAK_SECONDS
    while size > 256 and 8**3 * min(_product_seconds(size // 8, dtype) for _ in range(3)) > _PEAK_SECONDS:
        size //= 2
    best = _product_seconds(size, dtype)
    for _ in range(_PRODUCTS - 1):
        if time.perf_counter() > until:
            break
        best = min(best, _product_seconds(size, dtype))
    return 2.0 * size**3 / best


def _product_seconds(size: int, dtype: torch.dtype) -> float:
    left, right = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    began = time.perf_counter()
    left @ right
    return time.perf_counter() - began


def step_work(config: Any, tokens: int, length: int) -> float:
    """Return FLOP of an encoder step over so many tokens: forward and input gradients, two for each multiply-add."""
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = 2.0 * tokens * (4 * hidden * hidden + 2 * hidden * inner) + 2.0 * 2 * tokens * length * hidden
    # The lowest layer's three projections need no gradient for their input, which is frozen.
    work: float = 2 * layer * config.num_hidden_layers - 2.0 * tokens * 3 * hidden * hidden
    return work


def measure(steps: int) -> dict[str, float]:
    """Return the rates of the product and of the step, and their ratio."""
    texts = [{"text": " ".join(["word"] * 126), "label": "positive"} for _ in range(10 * DRAWN)]
    with tempfile.TemporaryDirectory() as cache:
        bench = prepare(texts, {}, None, Path(cache))
        seconds = [step_seconds(PRIVATE, bench) for _ in range(steps + 1)][1:]
    encoder: Any = bench.model.module.encoder
    config = encoder.base_model.model.config
    peaks = {name: matrix_peak(getattr(torch, name)) for name in ("float32", "bfloat16")}
    reached = step_work(config, DRAWN * _LENGTH, _LENGTH) / statistics.median(seconds)
    return {
        "fraction_of_peak": round(reached / max(peaks.values()), 3),
        "fraction_of_bfloat16_peak": round(reached / peaks["bfloat16"], 3),
        "step_gflops": round(reached / 1e9, 1),
        "float32_peak_gflops": round(peaks["float32"] / 1e9, 1),
        "bfloat16_peak_gflops": round(peaks["bfloat16"] / 1e9, 1),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=5, help="steps to take (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    facts = measure(options.steps)
    print(json.dumps(facts) if options.json else "\n".join(f"{name:28} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
