"""The kinds of task. A new kind: one file with a class like `TextClassification`, a line in `TaskSettings`, its test.

task                  the base of every kind
text_classification   one label for one text
token_classification  a type for each name in a text
scoring               one number for one text
heads                 heads on the states of a base
labels                labels as files write them
entities              names in a text as tags, and how they are counted

A kind is a frozen pydantic model. Its fields are the `[task]` section of run.toml; training, evaluation and export call
its methods (`Task` lists them). torch is imported inside methods, so that reading a configuration stays instant.
"""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from confide.common.tasks.scoring import Scoring
from confide.common.tasks.task import Task
from confide.common.tasks.text_classification import TextClassification
from confide.common.tasks.token_classification import TokenClassification

__all__ = ["Task", "TaskSettings"]


def _kind(task: Any) -> Any:
    """Return the kind of a `[task]` section; without one it is text classification."""
    return task.get("kind", "text-classification") if isinstance(task, dict) else getattr(task, "kind", None)


TaskSettings = Annotated[
    Annotated[TextClassification, Tag("text-classification")]
    | Annotated[TokenClassification, Tag("token-classification")]
    | Annotated[Scoring, Tag("scoring")],
    Discriminator(_kind),
]
