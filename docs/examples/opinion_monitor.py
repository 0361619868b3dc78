"""Read predictions of `confide predict`, count opinions by topic and day, and tell when blame jumps.

    confide predict runs/opinion --file stream.jsonl --jsonl | python docs/examples/opinion_monitor.py

With --make it writes a made-up stream.jsonl instead: on the last day the texts about one topic turn bad.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

GOOD = ["I love this {topic}, it works so well", "a great {topic}, very happy with it", "the {topic} is excellent"]
BAD = ["this {topic} is awful, I hate it", "a terrible {topic}, what a waste", "the {topic} is bad and makes me angry"]
DAYS, TEXTS = 6, 20  # texts on each topic a day
Counts = Counter[tuple[str, bool]]  # of a topic's texts: blame, or not
JUMP = 4.0  # standard errors; with three, one topic in 740 would be told every day by chance


def stream(seed: int = 7) -> list[dict[str, object]]:
    """Return texts with a topic and a day, in the order of the days."""
    draw = random.Random(seed)
    rows: list[dict[str, object]] = []
    for day in range(1, DAYS + 1):
        for topic in ("phone", "train", "hotel"):
            bad = 0.9 if (topic, day) == ("train", DAYS) else 0.2
            for _ in range(TEXTS):
                text = draw.choice(BAD if draw.random() < bad else GOOD).format(topic=topic)
                rows.append({"day": day, "topic": topic, "text": text})
    return rows


def monitor(lines: Iterable[str], blame: str = "negative") -> Iterator[str]:
    """Yield the lines of each day once a later day begins, or the stream ends; days come in order."""
    past, today, day = Counts(), Counts(), None
    for line in lines:
        row = json.loads(line)
        if "prediction" not in row:  # a line that could not be read has an "error"
            continue
        day = row["day"] if day is None else day
        if row["day"] > day:
            yield from told(day, today, past)
            past.update(today)
            day, today = row["day"], Counts()
        late = row["day"] < day
        (past if late else today)[row["topic"], row["prediction"] == blame] += 1
    if day is not None:
        yield from told(day, today, past)


def told(day: int, today: Counts, past: Counts) -> Iterator[str]:
    """Yield a line for each topic of a day, and an alert if the share of blame is far above that of all days before."""
    for topic in sorted({topic for topic, _ in today}):
        bad, good = today[topic, True], today[topic, False]
        yield f"day {day}, {topic}: {bad} of {bad + good} are blame"
        before = past[topic, True] + past[topic, False]
        if before:
            usual = (past[topic, True] + 1) / (before + 2)
            error = (usual * (1 - usual) * (1 / (bad + good) + 1 / before)) ** 0.5
            if bad / (bad + good) > usual + JUMP * error:
                yield f"ALERT day {day}, {topic}: {bad / (bad + good):.0%} blame, usually {usual:.0%}"


if __name__ == "__main__":
    if "--make" in sys.argv:
        Path("stream.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stream()), encoding="utf-8")
    else:
        for told_line in monitor(sys.stdin):
            print(told_line, flush=True)
