"""Write messages.jsonl: made-up messages to four shops, each with its own wares, and what the customer wants.

Also replies.jsonl: such messages with what the shop's agent wrote back, as a prompt and its completion.
"""

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
REPLIES = {
    "delivery": "We are sorry for the wait. Your {ware} of order {order} arrives tomorrow.",
    "refund": "Please send the {ware} back. The money for order {order} is with you in a week.",
    "invoice": "A new invoice for order {order} comes by e-mail today.",
    "account": "Please follow the link that we have sent you by e-mail.",
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
    """Return so many messages to each shop with the agent's reply, the same on every call."""
    draw = random.Random(7)
    rows = []
    for shop, wares in WARES.items():
        for _ in range(count):
            want = draw.choice(list(WANTS))
            form, ware = draw.choice(WANTS[want]), draw.choice(wares)
            opening, ending, order = draw.choice(OPENINGS), draw.choice(ENDINGS), draw.randrange(10**5)
            text = f"{opening} {form.format(ware=ware)}. {ending} Order {order}.".strip()
            reply = REPLIES[want].format(ware=ware, order=order)
            rows.append({"shop": shop, "text": text, "label": want, "reply": reply})
    return rows


def replies(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return messages as what a model reads and what it learns to write."""
    return [{"shop": row["shop"], "prompt": f"{row['text']} Reply:", "completion": f" {row['reply']}"} for row in rows]


def write(name: str, rows: list[dict[str, str]]) -> None:
    """Write one JSON object a line."""
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write("messages.jsonl", messages(400))
    write("replies.jsonl", replies(messages(150)))
