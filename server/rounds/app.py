"""Flower's ServerApp, which starts the strategy of one job."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from confide.server.rounds.strategy import ConfideStrategy, to_arrays


def make_server_app(strategy: ConfideStrategy) -> ServerApp:
    """Return the ServerApp that all three engines run. The caller reads results from the strategy afterwards."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        federation = strategy.job.run.federation
        arrays = to_arrays(strategy.job.initial)
        strategy.start(grid, arrays, num_rounds=federation.num_rounds, timeout=federation.deadline_seconds)

    return app
