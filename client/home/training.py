"""Training for the institution itself: the rounds of a run on its own records, without noise, for nothing leaves."""

import time
from collections.abc import Callable

from confide.client.training.batches import BatchedUnits
from confide.client.training.local_steps import LocalWork, train
from confide.common.config.run import RunConfig
from confide.common.model.warm_model import WarmModel, forgetting_on_error
from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import NoPrivacy
from confide.common.tensors import State
from confide.common.training import optimizer

Tell = Callable[[str], None]


def train_at_home(
    run: RunConfig, model: WarmModel, units: BatchedUnits, begin: State, coins: CoinSource, tell: Tell
) -> State:
    """Return the adapter after as many rounds as a run has, of this institution alone, without privacy.

    Args:
        run: gives rounds, steps, sampling and learning rates.
        model: of the run.
        units: at least one.
        begin: the adapter before the first round.
        coins: draw the units of each step.
        tell: gets lines about the progress, with an estimate of the time that is left.
    """
    plan = NoPrivacy(run.local.sampling_probability, run.num_steps, units.num_units)
    trained, last, began = optimizer.start(begin), run.federation.num_rounds, time.monotonic()
    for number in range(1, last + 1):
        work = LocalWork(plan, trained.adapter, run.local.steps, run.local.learning_rate)
        with forgetting_on_error():
            trained = optimizer.apply(trained, train(work, model, units, coins), run.federation)
        if number == 1 or number % -(-last // 5) == 0:
            left = (time.monotonic() - began) / number * (last - number)
            tell(f"  round {number} of {last}, about {_duration(left)} left")
    return trained.average


def _duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> _duration(12.2), _duration(170), _duration(9000)
    ('13 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{int(seconds) + 1} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
