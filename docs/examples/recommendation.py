"""Write lists.jsonl: made-up readers of four libraries, what each liked, and candidates with their relevance."""

import json
import random
from pathlib import Path

SUBJECTS = {
    "crime": ["a detective hunts a killer", "murder in a country house", "a stolen painting and a clever thief"],
    "cooking": ["bread and cakes from the village", "soups for every season", "the secrets of Italian pasta"],
    "space": ["the first journey to Mars", "how stars are born", "life on a lonely space station"],
    "history": ["the fall of an empire", "daily life of medieval farmers", "letters from the great war"],
    "gardens": ["roses and how to keep them", "growing vegetables on a balcony", "trees of our parks"],
}
LIBRARIES = ["north", "east", "south", "west"]
CANDIDATES = 4


def lists(count: int) -> list[dict[str, object]]:
    """Return so many readers of each library; a candidate is relevant if its subject is one that the reader likes."""
    draw = random.Random(7)
    rows: list[dict[str, object]] = []
    for library in LIBRARIES:
        for _ in range(count):
            liked, *others = draw.sample(list(SUBJECTS), CANDIDATES)
            subjects = draw.sample([liked, *others], CANDIDATES)
            rows.append(
                {
                    "library": library,
                    "query": "liked: " + "; ".join(draw.sample(SUBJECTS[liked], 2)),
                    "candidates": [draw.choice(SUBJECTS[subject]) for subject in subjects],
                    "relevance": [float(subject == liked) for subject in subjects],
                }
            )
    return rows


if __name__ == "__main__":
    Path("lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists(300)), encoding="utf-8")
