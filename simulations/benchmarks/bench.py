"""The benchmarks of a step, its limit, a round, scale, bytes, overhead and a ledger: a table, and benchmarks.json.

    python simulations/benchmarks/bench.py [--out benchmarks.json]

Each runs in a process of its own, so that none warms up another. The other programs in `simulations/benchmarks/` run by
themselves; those in `simulations/benchmarks/scores/` are for a night.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def figures(name: str, *options: str) -> dict[str, Any]:
    """Return the JSON that one benchmark prints; its progress and its warnings go to the terminal."""
    command = [sys.executable, str(HERE / name), *options, "--json"]
    print(f"$ python simulations/benchmarks/{' '.join([name, *options])}", file=sys.stderr, flush=True)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603
    if done.returncode:
        sys.exit(f"{name} ended with exit code {done.returncode}; above is why")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def machine() -> dict[str, Any]:
    """Return the facts of the machine on which the figures were measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(memory, 1),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "bfloat16_tiles": torch.cpu._is_amx_tile_supported(),
        "cuda": cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"), help="file to write (benchmarks.json)")
    options = parser.parse_args()
    parts = {
        "step_causal": figures("step.py", "--causal"),  # first: its packages may be missing
        "step": figures("step.py"),
        "limit": figures("limit.py"),
        "round": figures("round.py"),
        "scale": figures("scale.py"),
        "bytes": figures("bytes.py"),
        "overhead": figures("overhead.py"),
        "ledger": figures("ledger.py"),
    }
    ratios = (
        "private_over_plain_time",
        "private_over_plain_memory",
        "throughput_over_naive",
        "throughput_over_naive_top3",
    )
    main_figures = {
        **{name: parts["step"][name] for name in ratios},
        **{f"{name}_causal": parts["step_causal"][name] for name in ratios},
        "fraction_of_peak": parts["limit"]["fraction_of_peak"],
        "overhead_4_clients": parts["round"]["overhead_4_clients"],
        "speedup_over_flower_example_100": parts["round"]["speedup_over_flower_example_100"],
        "memory_5000_over_10": parts["scale"]["memory_5000_over_10"],
        "bytes_ratio": parts["bytes"]["int8"]["bytes_ratio"],
    }
    options.out.write_text(json.dumps({**main_figures, "machine": machine(), "parts": parts}, indent=1) + "\n")
    for name, value in main_figures.items():
        print(f"{name:34} {value}")
    print(f"all figures: {options.out}")


if __name__ == "__main__":
    main()
