"""A client as it is installed: site.toml, records, a tiny BERT that is trained, Flower's messages."""
# ruff: noqa: E402 - the environment comes before the libraries that read it

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from confide.common.flower import prepare as prepare_flower

prepare_flower()

import torch
import transformers
from crash import asks
from crash.asks import Kind
from crash.planted import Planted
from support.ledgers import LINEAGE
from support.sites import make_records
from support.speed import CPU
from support.tiny_bert import save_tiny_bert

from confide.client.answers import round as answering
from confide.client.answers.app import make_client_app
from confide.client.site.installation import open_site
from confide.client.training.shares import ClientProcess
from confide.common import failpoints
from confide.common.config.run import RunConfig, lock, make_plan
from confide.common.config.sections import Transfer
from confide.common.config.toml import check
from confide.common.model.adapter import get_state, reset
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import warm_model
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.coins import Coins
from confide.common.privacy.filter import Cap, choose_order
from confide.common.privacy.plan import PrivacyPlan
from confide.common.protocol.answers import Update
from confide.common.protocol.asks import Ask
from confide.common.protocol.transfer import encode
from confide.common.protocol.wire import sha256
from confide.common.tensors import State, dump_state
from confide.simulations.engines.grid import InProcessGrid, SkippingClock

_ROUNDS = 4
# Epsilon of the whole plan is 3.6.
_PLAN = PrivacyPlan("record", 1.0, _ROUNDS, 20, 1.0, "automatic", 2.5, 1e-5, 0.5, 2, 10.0)
_CAPS = [Cap(epsilon, 1e-5) for epsilon in (3.0, 4.0, 4.5, 8.0, 8.0)]
_POLICY = """min_noise_multiplier = 0.1
max_steps = 1000
max_rounds = 1000
max_sampling_probability = 1.0
min_clip_norm = 0.01
max_head_weight = 10.0
min_release_seconds = 1.0
studies = ["one"]
base_models = ["any"]
require_approval = false
share_metrics = "private"
"""
_HOME = tempfile.TemporaryDirectory(prefix="confide-crash-bert-")
_made: dict[str, RunConfig] = {}
_inputs: dict[str, bytes] = {}  # by their hash; the first is a new adapter


def warm() -> None:
    """The base model, a locked run, and the adapters that the server sends; a fork copies the loaded model."""
    torch.set_num_threads(1)  # a fork has no threads of OpenMP, and a product that needs them waits for ever
    transformers.logging.disable_progress_bar()
    base = save_tiny_bert(Path(_HOME.name))
    content = {
        "study": {"name": "one"},
        "model": {"base": str(base)},
        "adapter": {"rank": 4},
        "task": {"kind": "text-classification", "labels": ["negative", "positive"], "max_length": 64},
        "federation": {"num_rounds": _ROUNDS},
        "local": {"sampling_probability": 1.0, "nominal_units": 20},
        "privacy": {"noise_multiplier": _PLAN.noise_multiplier},
        "evaluation": {"validation_every": 2},
    }
    run = _made["run"] = lock(check(RunConfig, content, "crash test"), hash_model(base))
    assert make_plan(run, 20) == _PLAN
    model = warm_model(run, CPU)
    reset(model.module, run.study.seed)
    for scale in (1.0, 0.5):
        payload = dump_state({name: scale * value for name, value in get_state(model.module).items()})
        _inputs[sha256(payload)] = payload
    for steps in range(_ROUNDS + 1):
        for releases in range(3):
            epsilon(_PLAN, steps, releases)
    for cap in _CAPS:
        choose_order(_PLAN, cap)


def script(random: Random) -> list[asks.Ask]:
    """Two runs' worth of rounds, some asked twice, some with another input, and the counts of every second round."""
    result: list[asks.Ask] = []
    first, second = _inputs
    for number in range(1, _ROUNDS + 1):
        result += [asks.Ask("one", "update", number, first)] * random.choice([1, 2])
        if random.random() < 0.3:
            result.append(asks.Ask("one", "update", number, second))
        if number % 2 == 0:
            result.append(asks.Ask("one", "validation", number, first))
    return result


def prepare(folder: Path) -> None:
    """Records beside the site file."""
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in make_records(20)))


class RealClient:
    """Opens the site and answers through Flower's messages, as every engine does."""

    def __init__(
        self, tell: Callable[[object], None], folder: Path, act: Callable[[str], None], planted: Planted
    ) -> None:
        site, self.errors = open_site(folder / "site.toml"), list[BaseException]()

        def report(error: BaseException) -> None:
            self.errors.append(error)
            site.report(error)

        def encode_update(state: State, form: Transfer) -> bytes:
            payload = encode(state, form)
            tell(("drawn", payload[-64:]))
            return payload

        def dump_counts(state: State) -> bytes:
            payload = dump_state(state)
            tell(("drawn", payload[-8:]))
            return payload

        answering.encode = encode_update  # type: ignore[attr-defined]
        answering.dump_state = dump_counts  # type: ignore[attr-defined]
        told, client = site.with_report(report), ClientProcess()
        if planted.bug == "reuse-coins":
            client = ClientProcess(coins=lambda: Coins(bytes(32)))
        self.grid = InProcessGrid(make_client_app(lambda context: told, client), 1, SkippingClock())

    def answer(self, ask: asks.Ask) -> tuple[object, ...]:
        """As Flower's message, and back."""
        kind = "train" if ask.what == "update" else "evaluate"
        message = self.grid.create_message(_as_message(ask).content(), kind, 1000, "1", ttl=600.0)
        [reply] = self.grid.send_and_receive([message])
        if list(reply.content) == ["update"]:
            return "answer", Update.from_content(reply.content).to_bytes()
        return "declined", type(self.errors[-1]).__name__, str(self.errors[-1])


def _as_message(ask: asks.Ask) -> Ask:
    run = _made["run"].canonical_json()
    hashes = (sha256(run.encode()), ask.input_sha256)
    return Ask(
        ask.study, LINEAGE, ask.round, run, *hashes, 1e11, receipt=ask.receipt, adapter=_inputs[ask.input_sha256]
    )


KIND = Kind(
    places=failpoints.NAMES,
    longest=0.3,
    caps=_CAPS,
    plans={"one": _PLAN},
    policy=_POLICY,
    script=script,
    warm=warm,
    prepare=prepare,
    client=RealClient,
    head=lambda content: Update.from_bytes(content).envelope.ledger_head,
    receipt=lambda content: Update.from_bytes(content).receipt(),
    payload=lambda content: content,
    reads_policy_at_every_ask=False,
)
