"""A personalised adapter: the shared one, trained on at home. It is not private and never leaves.

It lies in local/personalised/STUDY/RUN/. Nothing that answers a server reads local/.
"""

from pathlib import Path

from confide.client.home.training import Tell, train_at_home
from confide.client.training.batches import BatchedUnits
from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.export.card import public_base
from confide.common.export.load import put_adapter
from confide.common.export.personal import mark
from confide.common.export.write import write_adapter
from confide.common.model.adapter import get_state
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import CoinSource
from confide.common.tensors import State

FOLDER = "personalised"  # in local/
_GENTLER = 0.1
_CARD = """---
library_name: peft
base_model: {base}
tags:
- confide
- no-privacy
---

# {study}, personalised

> **NOT PRIVATE. NEVER LEAVES.** This adapter was trained on one institution's records without noise, and no person's
> part was clipped. What is in these records may be recovered from it. It stays at that institution, with those who may
> see them.

It began as the shared adapter of run {run}, and was then trained for {steps} steps at home, on the training share.

`confide predict FOLDER TEXT` uses it. `confide client evaluate` compares it with the shared one on held-out records.
"""


def folder_of(local: Path, study: str, run_name: str) -> Path:
    """Return the place of the personalised adapter of a run."""
    return local / FOLDER / study / run_name


def personalise(
    run: RunConfig, model: WarmModel, units: BatchedUnits, shared: Path, coins: CoinSource, tell: Tell
) -> State:
    """Return the state of a shared adapter after training at home; the model holds the rest of the shared one.

    Raises:
        InputError: the folder of the shared adapter does not fit its run.
    """
    put_adapter(model.module, shared, run)
    return trained_on(run, model, units, get_state(model.module), coins, tell)


def trained_on(
    run: RunConfig, model: WarmModel, units: BatchedUnits, shared: State, coins: CoinSource, tell: Tell
) -> State:
    """Return the state that follows a shared one after training at home."""
    return train_at_home(gentler(run), model, units, shared, coins, tell)


def gentler(run: RunConfig) -> RunConfig:
    """Return a run whose steps stay near a shared adapter: its own would lead as far away as from a fresh one.

    AdamW moves every number by about the learning rate, however small its gradient is.
    """
    federation, local = run.federation, run.local
    if federation.server_optimizer == "none":
        local = local.model_copy(update={"learning_rate": _GENTLER * local.learning_rate})
    else:
        federation = federation.model_copy(update={"learning_rate": _GENTLER * federation.learning_rate})
    return run.model_copy(update={"federation": federation, "local": local})


def write_personalised(folder: Path, run: RunConfig, model: WarmModel, state: State, models: Path) -> None:
    """Write a personalised adapter with its mark; a reader sees the whole folder or none of it.

    Args:
        folder: `folder_of`; only its owner may read local/personalised/, whoever made local/.
        run: of the shared adapter.
        model: as `personalise` left it.
        state: to write.
        models: the institution's folder of base models.

    Raises:
        InputError: the folder cannot be written.
    """
    card = _CARD.format(
        base=public_base(run.model.base), study=run.study.name, run=folder.name, steps=gentler(run).num_steps
    )
    try:
        folder.parents[2].mkdir(exist_ok=True, mode=0o700)
        folder.parents[1].mkdir(exist_ok=True)
        folder.parents[1].chmod(0o700)
        write_adapter(folder, run, model, state, card, mark(models))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; free some space") from None
