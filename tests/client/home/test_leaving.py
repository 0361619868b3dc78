"""No answer to a server reads a personalised adapter, or anything else of local/."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from support.installations import Asking, kinds
from support.kept import KeptSite, keep
from test_layers import ROOT

from confide.client.commands.at_home import make_personalised
from confide.client.site.installation import open_site
from confide.common.config.run import RunConfig
from confide.common.export.personal import PERSONALISED
from confide.common.protocol.asks import Finished

_ANSWERING = ("privacy", "data", "site", "training", "answers", "service")
_opened: list[Path] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and _opened is not None and isinstance(arguments[0], str | Path):
        _opened.append(Path(arguments[0]).absolute())


sys.addaudithook(_watch)


@pytest.fixture
def opened() -> Iterator[list[Path]]:
    """Files that are opened and folders that are listed, as Python tells its auditors."""
    global _opened  # noqa: PLW0603 - an audit hook stays for ever
    _opened = []
    yield _opened
    _opened = None


def _texts(room: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "client" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path.name, node.value


@pytest.fixture
def kept(tmp_path: Path, make_run: object) -> KeptSite:
    run: RunConfig = make_run(  # type: ignore[operator]
        local={"nominal_units": 20, "sampling_probability": 0.5}, federation={"num_rounds": 3}
    )
    return keep(tmp_path, run, "text-classification")


def test_no_answer_opens_or_holds_what_was_personalised(kept: KeptSite, opened: list[Path]) -> None:
    folder = make_personalised(kept.path, "test", lambda line: None)
    assert any(path.is_relative_to(folder.parent) for path in opened), "the watch sees the folder"
    opened.clear()
    site = open_site(kept.path)
    asking = Asking(kept.run, lambda: site)
    files = {file.name: file.read_bytes() for file in kept.folder.iterdir() if file.name != "sha256.json"}
    finished = Finished("test", asking.lineage, kept.run.sha256(), "", files)
    replies = [asking.offer(), asking.update(2), asking.counts(2), asking.send(finished.content(), "query.done")]
    replies += [asking.send(asking.ask(1), kind) for kind in ("query.rehearse", "query.sum", "query.rehearse_sum")]
    assert kinds(replies[1]) == ["update"]
    assert kinds(replies[3]) == []
    assert [path for path in opened if path.is_relative_to(kept.path.parent / "local" / "personalised")] == []
    weights = (folder / "adapter_model.safetensors").read_bytes()[-64:]
    leak = RecordDict(
        {"config": ConfigRecord({"w": b"x" + weights}), "arrays": ArrayRecord([np.frombuffer(weights, "f4")])}
    )
    assert _bytes_of(leak).count(weights) == 2, "a leak would be seen"
    sent = b"".join(map(_bytes_of, replies))
    assert len(sent) > 1000
    assert PERSONALISED.encode() not in sent
    assert weights not in sent


def _bytes_of(reply: RecordDict) -> bytes:
    """All values of a reply as bytes."""
    values = [value for record in reply.values() for value in record.values()]
    return b" ".join(
        value.data if isinstance(value, Array) else value if isinstance(value, bytes) else str(value).encode()
        for value in values
    )


@pytest.mark.parametrize("room", _ANSWERING)
def test_no_room_that_answers_knows_the_folder(room: str) -> None:
    """`test_layers` shows that none of them imports the room that does."""
    assert [name for name, text in _texts(room) if text == "personalised"] == []


def test_the_folder_is_found_where_it_is_known() -> None:
    assert [name for name, text in _texts("home") if text == "personalised"]
