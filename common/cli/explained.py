"""Explanations beside predictions: as fields, as coloured text, and on a page."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from confide.common.explanation.coloured import MAX_CHARS, coloured
from confide.common.explanation.explaining import explanation
from confide.common.explanation.page import MAX_RECORDS, write_page
from confide.common.explanation.spans import read_texts
from confide.common.explanation.targets import explained_task
from confide.common.model.warm_model import WarmModel
from confide.common.shown import shown

_TOLD_EVERY = 10


class Explainer:
    """Explains predictions one after the other, and keeps the first ones for a page."""

    def __init__(self, model: WarmModel) -> None:
        self.model, self.task = model, explained_task(model.task)
        self.kept = list[dict[str, Any]]()
        self.number = 0

    def fields(self, record: Mapping[str, Any], prediction: Any) -> dict[str, Any]:
        """Return the field ``explanation`` of a prediction."""
        found = explanation(self.model, record, prediction)
        self.number += 1
        if self.number % _TOLD_EVERY == 0 and sys.stderr.isatty() and not sys.stdout.isatty():
            typer.echo(f"explained {self.number} records", err=True)  # a terminal shows the answers themselves
        if len(self.kept) < MAX_RECORDS:
            self.kept.append({"texts": read_texts(self.task, record), "explanation": found})
        return {"explanation": found}

    def text(self, record: Mapping[str, Any], prediction: Any) -> str:
        """Return the explanation of a prediction as coloured text."""
        found = self.fields(record, prediction)["explanation"]
        texts = read_texts(self.task, record)
        parts = [coloured(texts, explained) for explained in found]
        return "\n".join(parts or ["nothing was found here: " + shown(" ".join(texts.values()), MAX_CHARS)])

    def write_page(self, path: Path) -> None:
        """Write the page; `InputError` if it cannot be written."""
        write_page(path, self.kept, self.number - len(self.kept))
