"""A finished run, as Python sees it."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from confide.common.config.run import RunConfig
from confide.common.data.records import Record
from confide.common.errors import InputError
from confide.common.export.load import load_adapter
from confide.common.model.evaluation import answer
from confide.common.model.scores import score_text
from confide.common.model.warm_model import WarmModel
from confide.server.results.findings import BASELINES
from confide.server.results.progress import conditions
from confide.server.results.run_directory import RunDirectory


def predicted(model: WarmModel, inputs: Iterable[str | Record]) -> list[Any]:
    """Return a model's prediction for each text or record; `InputError` for one that stands in no list."""
    single = isinstance(inputs, str | Mapping | pandas.DataFrame)  # iterated, they give letters or names of columns
    items: list[Any] = [inputs] if single else list(inputs)
    wrong = [type(item).__name__ for item in items if single or not isinstance(item, str | Mapping)]
    if wrong:
        raise InputError(f"predict got a {wrong[0]}: give a list of texts or of records (dictionaries)")
    return answer(model, [model.task.from_text(item) if isinstance(item, str) else item for item in items])


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        run: locked.
        folder: the run directory.
        summary: the object that ``confide simulate --json`` prints.
    """

    run: RunConfig
    folder: Path
    summary: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """The headline: ``metric``, ``mean`` over institutions, ``per_institution``; and each baseline's."""
        score = dict(self.summary["score"] or {})
        return score | ({"baselines": self.summary["baselines"]} if "baselines" in self.summary else {})

    @property
    def epsilon(self) -> dict[str, float | None]:
        """Epsilon that each institution spent; None without privacy."""
        spent: dict[str, float | None] = self.summary["epsilon"]
        return spent

    @property
    def epsilon_if_broken(self) -> dict[str, float] | None:
        """Of shared noise: epsilon if all others collude or the sum is broken, by institution; else None."""
        return self.summary.get("epsilon_if_broken")

    @property
    def history(self) -> pandas.DataFrame:
        """A row for each round: ``round``, ``institutions`` that answered, and where it was measured ``score``."""
        rows = [
            {
                "round": line["round"],
                "institutions": line["accepted"],
                "score": (line.get("score") or {}).get("mean"),
            }
            for line in RunDirectory.at(self.folder).rounds()
        ]
        return pandas.DataFrame(rows).set_index("round")

    @property
    def report(self) -> Path:
        """The report, an HTML page."""
        return self.folder / "report.html"

    @property
    def adapter(self) -> Any:
        """The finished model without a head of ours: a PeftModel on its base, where PEFT has the method."""
        module: Any = self._model.module
        return module.encoder

    @functools.cached_property
    def _model(self) -> WarmModel:
        return load_adapter(self.folder / "adapter")[1]

    def predict(self, inputs: Iterable[str | Record]) -> list[Any]:
        """Return the prediction for each text or record (`confide predict`)."""
        return predicted(self._model, inputs)

    def plot(self) -> Figure:
        """Return the curve of the headline over rounds, with the baselines as lines."""
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes: Axes = figure.subplots()
        measured = self.history["score"].dropna()
        axes.plot(measured.index, measured, "o-", label="this run")
        for number, (name, score) in enumerate(self.metrics.get("baselines", {}).items(), start=1):
            axes.axhline(score["mean"], linestyle="--", color=f"C{number}", label=BASELINES[name])
        axes.set_xlabel("round")
        axes.set_ylabel(self.run.task.headline)
        axes.legend()
        return figure

    def __repr__(self) -> str:
        metric, mean = self.run.task.headline, self.metrics.get("mean")
        reached = "not measured" if mean is None else score_text(metric, mean)
        most = max((value for value in self.epsilon.values() if value is not None), default=None)
        privacy = "no privacy" if most is None else f"epsilon {most:.4g} at delta {self.summary['target_delta']:g}"
        privacy += conditions(self.run, max((self.epsilon_if_broken or {}).values(), default=None))
        return f"Result({self.run.study.name}: {metric} {reached}, {privacy}; {self.folder})"
