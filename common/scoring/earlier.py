"""The score on the task that a finished adapter was trained for, before and after a run that goes on from it.

It is computed from public records and from two adapters that have left the institutions already. So it reads no private
record, and costs no epsilon.
"""

from pathlib import Path
from typing import Any

from confide.common.config.run import RunConfig
from confide.common.data.records import read_public
from confide.common.errors import InputError
from confide.common.export.start import initial_state
from confide.common.model.evaluation import Records, evaluate
from confide.common.model.warm_model import WarmModel
from confide.common.tensors import State


def read_earlier(run: RunConfig, path: str | None) -> Records:
    """Return the records of `evaluation.earlier`, whose path is given; none without one.

    Raises:
        InputError: the file does not fit the run; the message names the setting.
    """
    if not path:
        return []
    try:
        return read_public(Path(run.at(path)), run.task)[0]
    except InputError as error:
        raise InputError(f"evaluation.earlier = {run.evaluation.earlier!r}: {error}") from None


def earlier_scores(model: WarmModel, run: RunConfig, state: State, records: Records) -> dict[str, Any] | None:
    """Return the headline on records of the earlier task: of the adapter that the run went on from, and of its result.

    Args:
        model: of the run.
        run: locked, with `adapter.start_from`.
        state: of the finished adapter.
        records: public, of the earlier task; without any the answer is None.
    """
    if not records:
        return None
    start, finished = (evaluate(model, each, {"": records}).mean for each in (initial_state(run, model), state))
    return {"records": len(records), "start": start, "finished": finished}
