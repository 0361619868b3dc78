"""A round on made-up records, computed in a rehearsal. It is given no site, no share and no ledger."""

from confide.client.data.units import UnitTable
from confide.client.training.batches import BatchedUnits, batch_units
from confide.client.training.local_steps import LocalWork, share, train
from confide.client.training.trial import tried_shapes
from confide.common.config.run import RunConfig
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import Plan, PrivacyPlan
from confide.common.tensors import State

_DISTINCT = 16  # records; units repeat them, so that a million units take no time to encode


def rehearse(
    run: RunConfig, plan: Plan, received: State, model: WarmModel, coins: CoinSource, tokens_per_micro_batch: int
) -> State:
    """Take the local steps of one round, as `train` does, on as many made-up units as the institution declares.

    Guarantee: the result depends on the arguments only, all of them public but the coins. Every text is as long as the
    task allows. If a unit is one record, a rehearsal therefore takes about as long as the longest round.

    Returns:
        The change of the adapter, in its schema.
    """
    units = _made_up_units(run, plan, model, tokens_per_micro_batch)
    return train(LocalWork(plan, received, run.local.steps, run.local.learning_rate), model, units, coins)


def rehearse_share(
    run: RunConfig, plan: PrivacyPlan, received: State, model: WarmModel, coins: CoinSource, tokens_per_micro_batch: int
) -> int:
    """Take the one step of a round whose noise is shared, on such units; its result is dropped, and its time counts.

    Returns:
        The size of the share, in numbers.
    """
    units = _made_up_units(run, plan, model, tokens_per_micro_batch)
    return share(plan, received, model, units, coins).size


def _made_up_units(run: RunConfig, plan: Plan, model: WarmModel, tokens_per_micro_batch: int) -> BatchedUnits:
    task = run.task
    encoded = [task.examples(task.made_up(run.study.seed, number), model.tokenizer) for number in range(_DISTINCT)]
    table = UnitTable([encoded[unit % _DISTINCT] for unit in range(plan.declared_units)])
    return batch_units(table, model, tried_shapes(model, tokens_per_micro_batch))
