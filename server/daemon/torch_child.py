"""A child process for the work that needs torch: start values, evaluation, export. The server never imports torch.

The child lives as long as a run. It holds no private data, for the server has none. The pipe joins only our processes.
"""

import multiprocessing
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, InputError
from confide.common.flower import prepare
from confide.common.model.scores import Scores
from confide.common.tensors import State


class Workshop:
    """The child of one run.

    Args:
        run: the locked run.
        home: the server's folder; relative paths of a run (of `evaluation`, and `adapter.start_from`) are paths in it.
    """

    def __init__(self, run: RunConfig, home: Path) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the server's threads and sockets
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, run.model_dump_json(), str(home)), daemon=True)
        self._process.start()
        theirs.close()

    def read_public(self) -> None:
        """Read the public records, if the run names any, so that their faults show before rounds are charged."""
        self._ask("read_public")

    def initial(self) -> State:
        """Return the adapter before the first round."""
        state: State = self._ask("initial")
        return state

    def evaluate(self, state: State) -> Scores:
        """Return the score of a state on the public records."""
        scores: Scores = self._ask("evaluate", state)
        return scores

    def samples(self, state: State) -> list[dict[str, str]]:
        """Return what a state answers to some public records; none if the run names no public records."""
        samples: list[dict[str, str]] = self._ask("samples", state)
        return samples

    def look(self, state: State) -> dict[str, Any] | None:
        """Return a closer look at a state on the public records; None if the run names no public records."""
        look: dict[str, Any] | None = self._ask("look", state)
        return look

    def earlier(self, state: State) -> dict[str, Any] | None:
        """Return what a state has kept of the earlier task; None if the run names no records of one."""
        earlier: dict[str, Any] | None = self._ask("earlier", state)
        return earlier

    def export(self, folder: Path, state: State, card: dict[str, Any]) -> None:
        """Write an adapter with its model card."""
        self._ask("export", str(folder), state, card)

    def close(self) -> None:
        """End the child."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, task: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((task, arguments))
            error, result = self._pipe.recv()
        except (EOFError, OSError):
            raise ConfideError(f"the process that should {task} has ended; is there enough memory?") from None
        if error:
            raise ConfideError(f"{task}: {error}")
        return result


def _work(pipe: Connection, run_json: str, home: str) -> None:
    """Run the child's loop until the server closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the server ends this one
    prepare()  # as every process of ours: its logs are the server's
    bench = _Bench(RunConfig.model_validate_json(run_json), Path(home))
    while True:
        try:
            task, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((None, getattr(bench, task)(*arguments)))
        except ConfideError as error:
            pipe.send((str(error), None))
        except Exception as error:  # noqa: BLE001 - the server reports the failure and goes on
            pipe.send((traceback.format_exception_only(error)[-1].strip(), None))


class _Bench:
    """The tasks of the child."""

    def __init__(self, run: RunConfig, home: Path) -> None:
        self._run = run.placed({path: str(home / path) for path in [run.adapter.start_from] if path})
        self._public = str(home / run.evaluation.data) if run.evaluation.data else None
        self._earlier = str(home / run.evaluation.earlier) if run.evaluation.earlier else None

    def initial(self) -> State:
        from confide.common.export.start import initial_state

        return initial_state(self._run, self._model())

    def read_public(self) -> None:
        from confide.common.model.evaluation import require_readable
        from confide.common.scoring.earlier import read_earlier

        model = self._model()
        require_readable(model, read_earlier(self._run, self._earlier), f"evaluation.earlier = {self._earlier!r}")
        if self._public is None:
            return
        try:
            require_readable(model, self._records(), self._public)
        except InputError as error:
            raise InputError(
                f"evaluation.data = {self._run.evaluation.data!r}: {error}; mend it at the server, where a relative "
                "path is one in its folder"
            ) from None

    def evaluate(self, state: State) -> Scores:
        from confide.common.model.evaluation import evaluate

        return evaluate(self._model(), state, {"public": self._records()})

    def samples(self, state: State) -> list[dict[str, str]]:
        from confide.common.model.evaluation import samples

        return [] if self._public is None else samples(self._model(), state, self._records())

    def look(self, state: State) -> dict[str, Any] | None:
        from confide.common.scoring.closer_look import closer_look

        return (
            None if self._public is None else closer_look(self._model(), self._run, state, {"public": self._records()})
        )

    def earlier(self, state: State) -> dict[str, Any] | None:
        from confide.common.scoring.earlier import earlier_scores, read_earlier

        return earlier_scores(self._model(), self._run, state, read_earlier(self._run, self._earlier))

    def _records(self) -> list[dict[str, Any]]:
        from confide.common.data.records import read_public

        return read_public(Path(str(self._public)), self._run.task)[0]

    def export(self, folder: str, state: State, card: dict[str, Any]) -> None:
        from confide.common.export.write import export_adapter

        export_adapter(Path(folder), self._run, self._model(), state, card)

    def _model(self) -> Any:
        from confide.common.model.warm_model import warm_model

        return warm_model(self._run)
