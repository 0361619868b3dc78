"""The process of an institution: what it says in its own log."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from support.installations import Asking, write_site

from confide.client.service import _Answers
from confide.client.site import open_site
from confide.common.models import hash_model
from confide.common.run_config import RunConfig, lock

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def asking(make_run: MakeRun, base_folder: Path, tmp_path: Path) -> Asking:
    run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    path = write_site(tmp_path, policy={"max_rounds": 1})
    return Asking(run, _Answers(path, open_site(path))._current)


def test_a_server_of_another_version_is_a_line_in_log_and_audit(
    asking: Asking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = asking.ask(0).content()
    content["ask"]["flwr"] = "1.40.0"
    with caplog.at_level(logging.INFO, "confide"):
        asking.send(content, "query.offer")
    [line] = [record.message for record in caplog.records if "1.40.0" in record.message]
    assert line.startswith("refused: the server runs confide")
    assert "flwr '1.40.0'" in (tmp_path / "state" / "audit.jsonl").read_text(encoding="utf-8")


def test_other_reasons_stay_in_the_audit_log(asking: Asking, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process's log goes to places that nobody thought of; an error can hold a private text."""
    with caplog.at_level(logging.DEBUG):
        asking.offer()
    assert "max_rounds" in (tmp_path / "state" / "audit.jsonl").read_text(encoding="utf-8")
    assert "max_rounds" not in caplog.text
