"""Whether a step fits into this machine's memory, whatever it draws; found out before a run, on made-up texts."""

from dataclasses import replace

from confide.client.batches import batch_units
from confide.client.training import LocalWork, train
from confide.client.units import UnitTable
from confide.common.adapter import get_state
from confide.common.batches import length, padded_length
from confide.common.errors import InputError
from confide.common.privacy.coins import Coins
from confide.common.privacy.plan import Plan
from confide.common.warm_model import WarmModel, forget_models


def try_fullest(plan: Plan, model: WarmModel, tokens_per_micro_batch: int) -> None:
    """Take a step of the fullest micro-batches that any draw makes; once for each model and bound on tokens.

    Guarantee: what does not fit is refused for every data set alike. Else an institution would decline just those
    rounds that draw many units, or long ones, and so tell which they are.

    A micro-batch of R rows of length L takes memory for R * L hidden states, which is about the same for all; for
    R * L**2 attention weights, most where L is largest; and for R gradients, most where L is smallest. So these two are
    tried, twice in a row each, because the gradients of one are there while those of the next are made.

    Raises:
        InputError: the memory does not suffice.
    """
    if tokens_per_micro_batch in model.tried:
        return
    surely = replace(plan, sampling_probability=1.0)
    text = model.task.encode(model.task.made_up(0, 0), model.tokenizer)
    for size in (1, length(text)):
        example, padded = {**text, "input_ids": text["input_ids"][:size]}, padded_length(size)
        rows = batch_units(UnitTable([]), model, tokens_per_micro_batch).most_rows(padded)
        units = batch_units(UnitTable([[example]] * (2 * rows)), model, tokens_per_micro_batch)
        try:
            train(LocalWork(surely, get_state(model.module), 1, 1.0), model, units, Coins.fresh())
        except (MemoryError, RuntimeError) as error:  # PyTorch's are RuntimeErrors, of a GPU's memory too
            forget_models()  # they hold activations of the step
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"tokens_per_micro_batch = {tokens_per_micro_batch}: no step can be taken of {rows} rows of {padded} "
                f"tokens ({said[:200]}); lower it, or free memory"
            ) from None
    model.tried.add(tokens_per_micro_batch)
