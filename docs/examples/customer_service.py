"""Write messages.jsonl: made-up messages to four shops, each with its own wares, and what the customer wants."""

import json
import random
from pathlib import Path

WANTS = {
    "delivery": ["where is my {ware}", "the {ware} has not arrived", "when will you deliver the {ware}"],
    "refund": [
        "I want my money back for the {ware}",
        "the {ware} came broken, please refund me",
        "I return the {ware}",
    ],
    "invoice": ["please send the bill for the {ware}", "the {ware} is on my invoice twice", "I need a tax receipt"],
    "account": ["I forgot my password", "please change my address", "delete my account, I want no more {ware} adverts"],
}
WARES = {
    "books": ["novel", "atlas", "cookbook", "dictionary"],
    "garden": ["spade", "lawn mower", "rose bush", "hose"],
    "music": ["guitar", "flute", "drum kit", "sheet music"],
    "shoes": ["boots", "sandals", "trainers", "laces"],
}
OPENINGS = ["Hello,", "Good morning,", "Hi there,", "To whom it may concern:", ""]
ENDINGS = ["Thank you.", "Please hurry!", "Kind regards", "This is the second time I ask.", ""]


def messages(count: int) -> list[dict[str, str]]:
    """Return so many messages to each shop, the same on every call."""
    draw = random.Random(7)
    rows = []
    for shop, wares in WARES.items():
        for _ in range(count):
            want = draw.choice(list(WANTS))
            body = draw.choice(WANTS[want]).format(ware=draw.choice(wares))
            text = f"{draw.choice(OPENINGS)} {body}. {draw.choice(ENDINGS)} Order {draw.randrange(10**5)}."
            rows.append({"shop": shop, "text": text.strip(), "label": want})
    return rows


if __name__ == "__main__":
    Path("messages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in messages(400)), encoding="utf-8")
