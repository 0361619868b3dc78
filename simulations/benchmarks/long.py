"""Memory and time of a private step on long texts, with the trial before it: SmolLM2-135M, every layer adapted.

    python simulations/benchmarks/long.py [--tokens 2048] [--attention fixed]

Each text fills all tokens, has a loss on each of them, and is computed alone; layers are computed again in the
backward pass. The memory is the most that this process ever took, base model included. The trial tries every shape
several times, so it takes many times as long as a step of two texts.
"""

import argparse
import json
import resource
import sys
import time

from confide.client.data.units import make_units
from confide.client.training.batches import batch_units
from confide.client.training.trial import tried_shapes
from confide.common.config.run import RunConfig
from confide.common.config.simulation import SpeedSection
from confide.common.config.toml import check
from confide.common.errors import ConfideError
from confide.common.model.base_models import find_model
from confide.common.model.families import with_targets
from confide.common.model.warm_model import warm_model
from confide.simulations.benchmarks.inputs.causal_model import causal_model
from confide.simulations.benchmarks.inputs.texts import PRIVATE, Bench, film_texts
from confide.simulations.benchmarks.step import step_seconds

_ALONE = 16  # tokens in a micro-batch, the least: each text has one of its own
_UNITS, _TEXTS = 20, 200  # a step draws two units; so many remarks, one after the other, fill 2,048 tokens


def long_run(base: str, tokens: int) -> RunConfig:
    """Return a run of a causal model on plain texts of so many tokens."""
    settings = {
        "study": {"name": "long"},
        "model": {"base": base},
        "task": {"kind": "causal-lm", "form": "text", "max_length": tokens, "max_windows": 1},
    }
    run = check(RunConfig, settings, "long.py")
    return with_targets(run, find_model(run.model.base))


def measure(tokens: int, attention: str) -> dict[str, float | int | str]:
    """Return seconds of the trial and of the step, and the peak of this process's memory."""
    run = long_run(str(causal_model()), tokens)
    speed = SpeedSection.model_validate(
        {"attention": attention, "checkpointing": True, "tokens_per_micro_batch": _ALONE}
    )
    model = warm_model(run, speed)
    remarks = [str(row["text"]) for row in film_texts()]
    records = [{"text": " ".join(remarks[unit * _TEXTS // 2 :][:_TEXTS])} for unit in range(_UNITS)]
    table = make_units(records, run.task, model.tokenizer, bytes(32))
    began = time.perf_counter()
    shapes = tried_shapes(model, _ALONE)
    tried = time.perf_counter() - began
    bench = Bench(run, model, batch_units(table, model, shapes))
    return {
        "tokens": len(table.units[0][0]["input_ids"]),
        "attention": attention,
        "trial_seconds": round(tried, 1),
        "step_seconds": round(step_seconds(PRIVATE, bench), 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _unit() / 1e9, 2),
    }


def _unit() -> int:
    """Return the bytes of the system's unit of resident memory."""
    return 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=2048, help="of each text (2048)")
    parser.add_argument("--attention", default="fixed", choices=("eager", "fixed"), help="fixed or eager (fixed)")
    options = parser.parse_args()
    try:
        print(json.dumps(measure(options.tokens, options.attention)))
    except ConfideError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
