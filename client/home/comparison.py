"""The ways to an adapter side by side, on an institution's held-out share: none, alone, together, personalised."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from confide.client.home.training import Tell, train_at_home
from confide.client.training.shares import Shares
from confide.common.config.run import RunConfig
from confide.common.export.load import put_adapter
from confide.common.model.adapter import get_state, reset, set_state
from confide.common.model.evaluation import metrics_of, predict
from confide.common.model.scores import gain
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import CoinSource
from confide.common.scoring.chance import CHANCE, HeldOut, Interval, by_chance, interval

BASE, ALONE, FEDERATED, PERSONALISED = "base", "alone", "federated", "personalised"


@dataclass(frozen=True)
class Way:
    """One way to an adapter, and its results: all metrics, an interval of the headline, the predictions."""

    name: str
    metrics: dict[str, float]
    interval: Interval
    predictions: list[Any]


@dataclass(frozen=True)
class Difference:
    """Two ways over the same records: ``gain`` is how much better the first is; ``chance`` as `by_chance` says."""

    one: str
    other: str
    gain: float
    chance: float

    @property
    def is_chance(self) -> bool:
        """Return whether so many records cannot tell the two apart."""
        return self.chance > CHANCE


@dataclass(frozen=True)
class Comparison:
    """The results of all ways.

    Attributes:
        metric: the headline of the kind of task.
        num_records, num_units: of the held-out share.
        ways: in the order of columns.
        differences: together against alone first.
    """

    metric: str
    num_records: int
    num_units: int
    ways: list[Way]
    differences: list[Difference]

    def as_json(self) -> dict[str, Any]:
        """Return everything but the predictions."""
        return {
            "metric": self.metric,
            "records": self.num_records,
            "units": self.num_units,
            "ways": {way.name: {"metrics": way.metrics, "interval": way.interval._asdict()} for way in self.ways},
            "differences": [{**asdict(each), "within_chance": each.is_chance} for each in self.differences],
        }


def compare(
    run: RunConfig, model: WarmModel, shares: Shares, adapters: dict[str, Path], coins: CoinSource, tell: Tell
) -> Comparison:
    """Return the ways side by side.

    The base has the adapter and the head of before the first round: for a kind that writes, it is the bare base. Alone
    is trained here, from there on.

    Args:
        run: locked.
        model: of the run; its adapter is overwritten.
        shares: both with units.
        adapters: by way, FEDERATED first, the folders of finished adapters.
        coins: draw the units of each step of training alone.
        tell: gets lines about the progress.
    """
    records = [record for unit in shares.validation for record in unit]
    starts = [0, *accumulate(len(unit) for unit in shares.validation)]
    truths = [run.task.truth(record) for record in records]
    test = HeldOut(run.task, truths, [range(*each) for each in pairwise(starts)])
    ways = []
    for name in _prepared(run, model, shares, adapters, coins, tell):
        tell(f"{name}: {len(records)} held-out records")
        predictions = predict(model, records)
        ways.append(Way(name, metrics_of(model, records, predictions), interval(test, predictions), predictions))
    return Comparison(run.task.headline, len(records), len(test.units), ways, list(_differences(test, ways)))


def _prepared(
    run: RunConfig, model: WarmModel, shares: Shares, adapters: dict[str, Path], coins: CoinSource, tell: Tell
) -> Iterator[str]:
    """Put one way's adapter after the other into the model, and name it."""
    reset(model.module, run.study.seed)
    yield BASE
    tell(f"{ALONE}: {run.num_steps} steps on {shares.training.num_units} units, without noise, as none of it leaves")
    set_state(model.module, train_at_home(run, model, shares.training, get_state(model.module), coins, tell))
    yield ALONE
    for name, folder in adapters.items():
        put_adapter(model.module, folder, run)
        yield name


def _differences(test: HeldOut, ways: list[Way]) -> Iterator[Difference]:
    by_name, metric = {way.name: way for way in ways}, test.task.headline
    pairs = [(FEDERATED, ALONE), (FEDERATED, BASE), (PERSONALISED, FEDERATED)]
    for one, other in [pair for pair in pairs if by_name.keys() >= {*pair}]:
        first, second = by_name[one], by_name[other]
        better = gain(metric, first.metrics[metric], second.metrics[metric])
        yield Difference(one, other, better, by_chance(test, first.predictions, second.predictions))
