"""A round on made-up records, computed in a rehearsal. It is given no site, no share and no ledger."""

from dataclasses import replace

from confide.client.data.units import UnitTable
from confide.client.training.batches import batch_units
from confide.client.training.local_steps import LocalWork, train
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

    Of shared noise, the institution adds all of the sum's: no share of anything leaves unmasked, not even of this.

    Guarantee: the result depends on the arguments only, all of them public but the coins. Every text is as long as the
    task allows. If a unit is one record, a rehearsal therefore takes about as long as the longest round.

    Returns:
        The change of the adapter, in its schema.
    """
    task = run.task
    encoded = [task.examples(task.made_up(run.study.seed, number), model.tokenizer) for number in range(_DISTINCT)]
    table = UnitTable([encoded[unit % _DISTINCT] for unit in range(plan.declared_units)])
    units = batch_units(table, model, tried_shapes(model, tokens_per_micro_batch))
    alone = replace(plan, sharing=None) if isinstance(plan, PrivacyPlan) else plan
    return train(LocalWork(alone, received, run.local.steps, run.local.learning_rate), model, units, coins)
