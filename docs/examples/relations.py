"""Write relations.jsonl from the files of SemEval-2010 task 8, as its authors give them away.

    python docs/examples/relations.py TRAIN_FILE.TXT TEST_FILE_FULL.TXT

A sentence is a line with its number, then a line with its relation and which name comes first in it, then a comment.
"""

import json
import re
import sys
from pathlib import Path

SENTENCE = re.compile(r'(?m)^\d+\t"(.*)"\n([A-Za-z-]+)(?:\(e\d,e\d\))?$')


def relations(text: str) -> list[dict[str, str]]:
    """Return each sentence with its relation, without the direction."""
    return [{"text": sentence, "label": relation} for sentence, relation in SENTENCE.findall(text)]


if __name__ == "__main__":
    rows = [row for path in sys.argv[1:] for row in relations(Path(path).read_text(encoding="utf-8"))]
    Path("relations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} sentences")
