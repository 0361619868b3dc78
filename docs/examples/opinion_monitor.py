"""Read predictions of `confide predict`, count opinions by topic and day, and tell when blame jumps.

    confide predict runs/opinion --file stream.jsonl --jsonl | python docs/examples/opinion_monitor.py

With --make it writes a made-up stream.jsonl instead: on the last day the texts about one topic turn bad.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

GOOD = ["I love this {topic}, it works so well", "a great {topic}, very happy with it", "the {topic} is excellent"]
BAD = ["this {topic} is awful, I hate it", "a terrible {topic}, what a waste", "the {topic} is bad and makes me angry"]
DAYS, TEXTS = 6, 20  # texts on each topic a day
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


def monitor(lines: Iterable[str], blame: str = "negative") -> Iterable[str]:
    """Yield a line for each day and topic, and an alert if the share of blame is far above that of all days before."""
    counts: Counter[tuple[int, str, bool]] = Counter()
    for line in lines:
        row = json.loads(line)
        if "prediction" in row:  # a line that could not be read has an "error"
            counts[row["day"], row["topic"], row["prediction"] == blame] += 1
    for day, topic in sorted({(day, topic) for day, topic, _ in counts}):
        bad, good = counts[day, topic, True], counts[day, topic, False]
        yield f"day {day}, {topic}: {bad} of {bad + good} are blame"
        past = [sum(counts[before, topic, wrong] for before in range(day)) for wrong in (True, False)]
        if sum(past):
            usual = (past[0] + 1) / (sum(past) + 2)
            error = (usual * (1 - usual) * (1 / (bad + good) + 1 / sum(past))) ** 0.5
            if bad / (bad + good) > usual + JUMP * error:
                yield f"ALERT day {day}, {topic}: {bad / (bad + good):.0%} blame, usually {usual:.0%}"


if __name__ == "__main__":
    if "--make" in sys.argv:
        Path("stream.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stream()), encoding="utf-8")
    else:
        print("\n".join(monitor(sys.stdin)))
