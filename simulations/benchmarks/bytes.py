"""Bytes of an institution's round, in each form of transfer, against federated averaging of A, B and head in float32.

    python simulations/benchmarks/bytes.py [--json]

Ours counts everything that the protocol sends. An update has numbers, envelope and signature; an ask has the adapter,
the locked run, hashes, and the receipt of the last update. Theirs is a safetensors file of the tensors, and nothing
else. Rank 8 on the bundled MiniLM, two labels. Nothing is trained and no weight is read.
"""

import argparse
import json
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from flwr.app import RecordDict

from confide.common import flower

flower.prepare()

from confide.common.config.run import RunConfig, lock  # noqa: E402
from confide.common.config.sections import Transfer  # noqa: E402
from confide.common.config.toml import check  # noqa: E402
from confide.common.model.adapter import build_module, schema  # noqa: E402
from confide.common.model.base_models import find_model, hash_model  # noqa: E402
from confide.common.protocol.answers import Update, seal_envelope  # noqa: E402
from confide.common.protocol.asks import Ask  # noqa: E402
from confide.common.protocol.signatures import Identity  # noqa: E402 - after Flower's environment is set
from confide.common.protocol.transfer import encode  # noqa: E402
from confide.common.protocol.wire import sha256  # noqa: E402
from confide.common.tensors import State, dump_state  # noqa: E402


def measure() -> dict[str, dict[str, float]]:
    """Return bytes and ratios by transfer."""
    theirs = len(dump_state(_state(_run(train="AB"))))
    return {transfer: _sizes(_run(transfer), theirs) for transfer in get_args(Transfer)}


def _run(transfer: str = "float32", train: str = "B") -> RunConfig:
    settings: dict[str, Any] = {
        "study": {"name": "reviews-2026", "institutions": ["st-mary", "st-jude", "st-luke", "st-ann"]},
        "adapter": {"rank": 8, "train": train},
        "task": {"labels": ["negative", "positive"]},
        "federation": {"transfer": transfer},
        "privacy": {"noise_multiplier": 1.0},
    }
    run = check(RunConfig, settings, "bytes")
    return lock(run, hash_model(find_model(run.model.base)))


def _state(run: RunConfig) -> State:
    shapes = schema(build_module(run, find_model(run.model.base), torch.device("meta")))
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}  # no size depends on the values


def _sizes(run: RunConfig, theirs: int) -> dict[str, float]:
    payload, run_json, key = encode(_state(run), run.federation.transfer), run.canonical_json(), Identity(bytes(32))
    hashes = (sha256(run_json.encode()), sha256(payload))
    ask = Ask(run.study.name, "ab" * 16, 17, run_json, *hashes, 1.7e9 + 0.123456, adapter=payload)
    envelope = seal_envelope(ask, "update", ("st-mary", str(run.model.sha256)), payload, "0" * 64)
    update = Update(envelope, key.sign(envelope.text()), payload)
    sent, received = _size(update.content()), _size(replace(ask, receipt=update.receipt()).content())
    return {
        "bytes_payload": len(payload),
        "bytes_update": sent,
        "bytes_adapter": received,
        "bytes_fedavg_update": theirs,
        "bytes_ratio": round(sent / theirs, 4),
        "bytes_ratio_both_directions": round((sent + received) / (2 * theirs), 4),
    }


def _size(content: RecordDict) -> int:
    """Return the size of all records of a message, as Flower writes them."""
    return sum(len(record.deflate()) for record in content.values())


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    facts = measure()
    if options.json:
        print(json.dumps(facts))
        return
    for transfer, figures in facts.items():
        print(transfer)
        print("\n".join(f"  {name:30} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
