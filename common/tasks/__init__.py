"""The kinds of task. A new kind: one file with a class like `TextClassification`, a line in `TaskSettings`, its test.

task                        the base of every kind
text_classification         one label for one text
multi_label_classification  any number of labels for one text
token_classification        a type for each name in a text
scoring                     one number for one text
relation_classification     the relation between two names of a text
question_answering          the passage of a context that answers a question
ranking                     the order of candidates for a query
causal_lm                   what follows in a text, an instruction's answer, an assistant's turns
seq2seq                     one text from another
preference                  the better of two answers (DPO)
heads                       heads on the states of a base
written                     the methods of kinds that learn to write

A kind is a frozen pydantic model. Its fields are the `[task]` section of run.toml; training, evaluation and export call
its methods (`Task` lists them). torch is imported inside methods, so that reading a configuration stays instant.
"""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from confide.common.tasks.causal_lm import CausalLM
from confide.common.tasks.multi_label_classification import MultiLabelClassification
from confide.common.tasks.preference import Preference
from confide.common.tasks.question_answering import QuestionAnswering
from confide.common.tasks.ranking import Ranking
from confide.common.tasks.relation_classification import RelationClassification
from confide.common.tasks.scoring import Scoring
from confide.common.tasks.seq2seq import Seq2Seq
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
    | Annotated[Scoring, Tag("scoring")]
    | Annotated[CausalLM, Tag("causal-lm")]
    | Annotated[Seq2Seq, Tag("seq2seq")]
    | Annotated[RelationClassification, Tag("relation-classification")]
    | Annotated[QuestionAnswering, Tag("question-answering")]
    | Annotated[MultiLabelClassification, Tag("multi-label-classification")]
    | Annotated[Ranking, Tag("ranking")]
    | Annotated[Preference, Tag("preference")],
    Discriminator(_kind),
]
