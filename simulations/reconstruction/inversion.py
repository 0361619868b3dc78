"""Gradient inversion: which tokens come back from what leaves in one round, with noise and without.

A step on one text changes LoRA's B by a sum of outer products, whose second factors are A x for a layer's inputs x. So
the rows of the change span what A x spans. In the lowest layer x follows from a token and its place alone. An attacker
who has the base looks up every token at every place: the right ones lie in the span, as long as a text has fewer tokens
than the rank (DAGER, arXiv 2405.15586, does so with whole weights).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confide.client.data.units import UnitTable
from confide.client.training.batches import batch_units
from confide.client.training.local_steps import LocalWork, train
from confide.common.config.run import RunConfig, make_plan
from confide.common.data.batches import Example, collate, length, padded_length
from confide.common.data.shapes import one_row_each
from confide.common.model.adapter import get_state, public_name
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import Coins
from confide.common.privacy.plan import NoPrivacy, Plan, PrivacyPlan
from confide.common.tensors import State

PLAIN = NoPrivacy(1.0, 1, 1)  # of one unit: no noise, and a bound on the whole step alone
_TEXTS = 10
_ROWS = 256  # of the dictionary, looked up at once


@dataclass(frozen=True)
class Inversion:
    """The tokens that came back.

    Attributes:
        texts: how many texts were attacked, each alone in its round.
        tokens: of all of them together.
        without_noise: share of tokens that came back from an update without privacy.
        with_noise: the same from an update as the run's plan makes it, of one institution.
        chance: the same from noise alone: a round that nobody's text is in.
        void: why the attack says nothing about this run; None where it was tried.
    """

    texts: int = 0
    tokens: int = 0
    without_noise: float | None = None
    with_noise: float | None = None
    chance: float | None = None
    void: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return its fields."""
        return asdict(self)


class _SeenError(Exception):
    """The layer has been reached: no later one is needed."""


def invert(run: RunConfig, model: WarmModel) -> Inversion:
    """Attack made-up texts, shorter than the rank, each the only unit of its round and drawn for certain.

    Args:
        run: locked.
        model: its warm model, with start values.
    """
    layer = next((name for name, _ in model.module.named_modules() if name.endswith("lora_A.default")), None)
    if layer is None:
        return Inversion(void=f"the attack reads LoRA's factors, and adapter.method = {run.adapter.method!r} has none")
    rank = next(model.module.get_submodule(layer).parameters()).shape[0]
    texts = _short_texts(model, rank)
    if not texts:
        return Inversion(void=f"no text is shorter than the rank of {rank}, so every token fits into the span")
    longest = max(texts, key=lambda text: len(text["input_ids"]))
    if not _reads_tokens_alone(model, layer, longest):
        return Inversion(void="the lowest adapted layer reads tokens that lower layers have mixed")
    private, right = lone_plan(run), [0, 0, 0]
    dictionary = _looked_up(model, layer, longest)
    for text in texts:
        places = dictionary[: len(text["input_ids"])]
        for way, (own, plan) in enumerate(((text, PLAIN), (text, private), (None, private))):
            right[way] += _found(lone_update(model, own, plan), layer, places, text)
    tokens = sum(len(text["input_ids"]) for text in texts)
    without_noise, with_noise, chance = (count / tokens for count in right)
    return Inversion(len(texts), tokens, without_noise, with_noise, chance)


def _short_texts(model: WarmModel, rank: int) -> list[Example]:
    """Return examples of made-up records with fewer tokens than the rank."""
    made = (model.task.made_up(1, number, 1 + number % 4) for number in range(10 * _TEXTS))
    examples = (example for record in made for example in model.task.examples(record, model.tokenizer)[:1])
    return [example for example in examples if len(example["input_ids"]) < rank][:_TEXTS]


def lone_plan(run: RunConfig) -> Plan:
    """Return the plan of an institution's one unit, which is drawn for certain; with shared noise, of its own share."""
    plan = make_plan(run, 1)
    return replace(plan.if_broken, sampling_probability=1.0) if isinstance(plan, PrivacyPlan) else plan


def lone_update(model: WarmModel, text: Example | None, plan: Plan) -> State:
    """Return one round's change of the adapter by the code that clients run.

    Args:
        model: with the weights that the round begins with, and ends with here.
        text: the only unit; None: there is none, so under a `PrivacyPlan` the change is noise alone.
        plan: `lone_plan`, or `PLAIN`.
    """
    units = [] if text is None else [[text]]
    shapes = one_row_each(padded_length(1 if text is None else length(text)))
    start = get_state(model.module)
    return train(LocalWork(plan, start, 1, 1.0), model, batch_units(UnitTable(units), model, shapes), Coins.fresh())


def _found(change: State, layer: str, places_TVR: NDArray[np.float64], text: Example) -> int:
    """Return at how many places the token that fits the span of the change best is the right one."""
    change_OR = change[public_name(layer.replace("lora_A", "lora_B") + ".weight")].astype(np.float64)
    tokens = text["input_ids"]
    span_NR = np.linalg.svd(change_OR, full_matrices=False)[2][: len(set(tokens))]
    outside_TVR = places_TVR - places_TVR @ span_NR.T @ span_NR
    misfit_TV = np.linalg.norm(outside_TVR, axis=2) / np.linalg.norm(places_TVR, axis=2)
    return int((misfit_TV.argmin(axis=1) == np.array(tokens)).sum())


def _looked_up(model: WarmModel, layer: str, text: Example) -> NDArray[np.float64]:
    """Return A x of every token at every place of a text, shape ``(T, vocabulary, rank)``."""
    size, count = len(model.tokenizer), len(text["input_ids"])
    parts = []
    for start in range(0, size, _ROWS):
        rows = [[token] * count for token in range(start, min(start + _ROWS, size))]
        parts.append(_read(model, layer, text, rows))
    return np.concatenate(parts).transpose(1, 0, 2)


def _reads_tokens_alone(model: WarmModel, layer: str, text: Example) -> bool:
    """Return whether no later and no earlier token changes what a place reads; a causal model looks back alone."""
    rows = [list(text["input_ids"]) for _ in range(3)]
    for row, place in ((rows[1], -1), (rows[2], 0)):
        row[place] = (row[place] + 1) % len(model.tokenizer)
    mine, later, earlier = _read(model, layer, text, rows)
    pairs = ((mine[:-1], later[:-1]), (mine[1:], earlier[1:]))
    return all(np.allclose(own, other, rtol=1e-4, atol=1e-6) for own, other in pairs)


def _read(model: WarmModel, layer: str, text: Example, rows: list[list[int]]) -> NDArray[np.float64]:
    """Return what A gives for rows of tokens, shape ``(rows, T, rank)``; no layer above is computed."""
    count = len(rows[0])
    batch = collate([{**text, "input_ids": row} for row in rows], padded_length(count), model.pads, model.device)
    with torch.no_grad(), _stopping(model.module.get_submodule(layer)) as seen, suppress(_SeenError):
        model.task.losses(model.module, batch)
    return np.asarray(seen[0][:, :count].double().cpu().numpy())


@contextmanager
def _stopping(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Keep a layer's output, and end the forward pass there."""
    seen = list[Tensor]()

    def keep(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen.append(output.detach())
        raise _SeenError

    handle = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
