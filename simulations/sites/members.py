"""The members of a simulated secure sum: institutions of the data, with keys that anyone can compute."""

from collections.abc import Iterable

from confide.common.config.run import RunConfig, checked
from confide.common.config.sections import SECURE_SUM
from confide.common.errors import InputError
from confide.common.protocol.signatures import Identity
from confide.simulations.sites.simulated_sites import simulated_secret


def with_members(run: RunConfig, names: Iterable[str]) -> RunConfig:
    """Return a run of a secure sum with its simulated institutions and their keys; another run as it is.

    Raises:
        InputError: the run names other institutions than its data have, or they do not fit a secure sum.
    """
    there = tuple(names)
    if run.federation.aggregation != SECURE_SUM:
        return run
    if run.study.institutions and set(run.study.institutions) != set(there):
        raise InputError(
            f"study.institutions = {list(run.study.institutions)}, but the data of [simulation] have {list(there)}; "
            "leave study.institutions out of a simulation"
        )
    keys = {name: Identity(simulated_secret(run, name)).public_hex() for name in there}
    study = run.study.model_copy(update={"institutions": there, "keys": keys})
    return checked(run.model_copy(update={"study": study}))
