"""Private texts of an imagined institution, and one round of training on them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.client.data import units
from confide.client.training import local_steps
from confide.client.training.batches import BatchedUnits, batch_units
from confide.client.training.trial import tried_shapes
from confide.common.model.adapter import State, schema
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import Plan

SECRET = b"a secret of this institution"
_WORDS = ("the film was good and long", "not bad", "i hated the very long plot", "loved", "short 123 and ?! very short")


def make_records(count: int, groups: int | None = None) -> list[dict[str, Any]]:
    """Distinct records of 4 to 41 tokens; with ``groups``, record i belongs to group i modulo ``groups``."""
    records = []
    for number in range(count):
        text = " ".join([_WORDS[number % len(_WORDS)]] * (1 + number % 4) + [str(number)])
        record = {"text": text, "label": ("negative", "positive")[number % 2]}
        records.append(record if groups is None else {**record, "group": f"patient {number % groups}"})
    return records


def records_of(model: WarmModel, count: int, groups: int | None = None) -> list[dict[str, Any]]:
    """Records as those of `make_records`, or made-up ones of several lengths where the model's kind needs others.

    They are short, so that units do not fill whole micro-batches: such units have no companions.
    """
    records = make_records(count, groups)
    if {*model.task.fields()} <= records[0].keys() and model.task.check(records[0]) is None:
        return records
    made = [model.task.made_up(5, number, 2 * (1 + number % 4)) for number in range(count)]
    return made if groups is None else [{**own, "group": row["group"]} for own, row in zip(made, records, strict=True)]


def make_table(model: WarmModel, records: list[dict[str, Any]], max_records_per_group: int = 8) -> units.UnitTable:
    """Records as units, in the product's way."""
    return units.make_units(records, model.task, model.tokenizer, SECRET, max_records_per_group)


def batched(model: WarmModel, table: units.UnitTable, tokens: int = 128) -> BatchedUnits:
    """A table in small micro-batches, of shapes that were tried."""
    return batch_units(table, model, tried_shapes(model, tokens))


def random_state(model: WarmModel, seed: int = 1) -> State:
    """An adapter and head that are not zero, so that every tensor has a gradient."""
    random = np.random.Generator(np.random.PCG64(seed))
    shapes = schema(model.module)
    return {name: (0.3 * random.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def flatten(state: State) -> NDArray[np.float64]:
    """All tensors of a state, joined in their order, ``(P,)``."""
    return np.concatenate([value.ravel() for value in state.values()]).astype(np.float64)


def train_sum(plan: Plan, model: WarmModel, site: Any, coins: CoinSource, steps: int = 1) -> NDArray[np.float64]:
    """Minus the update of a round at learning rate 1, times the expected batch size: the sum of all steps, ``(P,)``."""
    work = local_steps.LocalWork(plan, random_state(model), steps, 1.0)
    return -flatten(local_steps.train(work, model, site, coins)) * plan.expected_batch_size


class DrawsOnly:
    """Units without examples that remember what was drawn."""

    def __init__(self, num_units: int) -> None:
        self.num_units = num_units
        self.draws: list[list[int]] = []

    def micro_batches(self, drawn: list[int]) -> Iterator[Any]:
        self.draws.append(drawn)
        return iter(())


MIXED_UNITS = 7


def mixed_records(model: WarmModel, more: int) -> list[dict[str, Any]]:
    """Records of seven units, one or two for each, of made-up texts that grow by so many words; two are of a length.

    Only units of one padded length share a micro-batch, so some of them must have companions.
    """
    return [
        {**model.task.made_up(5, number, 3 + more * (number - number % 2)), "group": str(number % MIXED_UNITS)}
        for number in range(MIXED_UNITS + 3)
    ]


def mixed_units(model: WarmModel) -> list[list[dict[str, Any]]]:
    """The records of seven units, unit by unit."""
    records = mixed_records(model, 2)
    return [[row for row in records if row["group"] == str(number)] for number in range(MIXED_UNITS)]


def mixed_table(model: WarmModel, more: int) -> units.UnitTable:
    """Seven units of one record or two."""
    return make_table(model, mixed_records(model, more))
