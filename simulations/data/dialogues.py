"""First exchanges of dialogues between two people (chitchat-dataset: Myers, Etchart and Fulda, 2020)."""

import json
from collections import Counter

from confide.common.data.records import Record
from confide.simulations.data.packaged import distinct, find_packaged

PACKAGE = "chitchat-dataset==0.9.0"  # 8 MB
_MOST = 2  # dialogues of one speaker: a few people had hundreds
_CHARS = 120  # of a turn


def read_dialogues() -> list[Record]:
    """Read the first turn of each dialogue and the reply to it. All replies of one speaker are of one group.

    Returns:
        Rows with "prompt", "completion" and "speaker" (who replied).
    """
    path = find_packaged("chitchat_dataset", "dataset.json", f"pip install --no-deps {PACKAGE}")
    dialogues = json.loads(path.read_text(encoding="utf-8")).values()
    rows = [_row(*dialogue["messages"][:2]) for dialogue in dialogues if len(dialogue["messages"]) > 1]
    short = [row for row in rows if max(len(row["prompt"]), len(row["completion"])) <= _CHARS]
    seen: Counter[str] = Counter()
    kept = []
    for row in distinct(short, key=lambda row: row["completion"].lower()):
        seen[row["speaker"]] += 1
        if seen[row["speaker"]] <= _MOST:
            kept.append(row)
    return kept


def _row(first: list[dict[str, str]], reply: list[dict[str, str]]) -> Record:
    said, answered = (" ".join(part["text"].strip() for part in turn) for turn in (first, reply))
    return {"prompt": f"A: {said}\nB:", "completion": f" {answered}", "speaker": reply[0]["sender"]}
