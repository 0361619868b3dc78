"""Flower's ServerApp, which carries out the rounds of one run."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from confide.server.rounds.loop import run_rounds
from confide.server.rounds.run_context import RunState


def make_server_app(state: RunState) -> ServerApp:
    """Return the ServerApp that all three engines run. The caller reads results from the state afterwards."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run_rounds(state, grid)

    return app
