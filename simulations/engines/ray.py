"""Flower's Ray engine: the same apps, in a process for each CPU of one machine (RAY_ADDRESS: of a running Ray)."""

import logging
import warnings

from confide.client.answers.app import make_client_app
from confide.common.errors import ConfideError, InputError
from confide.server.rounds.loop import make_server_app
from confide.server.rounds.run_context import RunState
from confide.simulations.engines.federation import Federation


def simulate_on_ray(federation: Federation, state: RunState) -> None:
    """Run a federation on Ray: one actor for each CPU, each with its own warm model.

    Any actor answers for any institution, so all share the ledgers in the run's folder, and stand on one machine.
    Ray itself reads RAY_ADDRESS.

    Raises:
        InputError: Ray is not installed.
        ConfideError: the federation failed.
    """
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(
            "--engine ray needs Ray; pip install '.[ray]' in a checkout of Confide, or leave the option out"
        ) from None
    from flwr.simulation import run_simulation

    server_app = make_server_app(state)
    logging.getLogger("flwr").setLevel(logging.ERROR)  # Opacus sets it to DEBUG when it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            run_simulation(
                server_app,
                make_client_app(federation.sites),
                num_supernodes=len(federation.sites.names),
                backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
            )
        except RuntimeError as error:
            raise ConfideError(f"Flower's Ray engine stopped: {error}") from error
    if not state.finished:
        raise ConfideError(f"the federation stopped after round {state.trained.round}; Flower's log above says why")
