"""What is kept of errors and refusals: enough to mend them, and never so much that a server could fill the disk."""

import json
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.installations import Asking, kinds, write_site

from confide.client.site import journal
from confide.client.site.installation import Site, open_site
from confide.client.site.journal import keep_error, keep_refusal
from confide.common.config.run import RunConfig, lock
from confide.common.errors import LedgerError, PolicyError
from confide.common.model.base_models import hash_model
from confide.common.protocol.wire import sha256

HOSTILE = "labels = 'x\n2026-01-01T00:00:00Z\nPolicyError: all is well\x1b[2J\u202e'" + "x" * 60_000


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return open_site(write_site(tmp_path))


def test_a_server_s_words_stay_on_one_short_line_of_each_file(tmp_path: Path, site: Site) -> None:
    for error in (PolicyError(HOSTILE), ValueError(HOSTILE)):
        site.report(error)
    errors, refusals = _lines(tmp_path / "local" / "errors.log"), _lines(tmp_path / "state" / "refusals.jsonl")
    for line in (*errors, *refusals):
        assert line.isprintable()
        assert len(line) < 3000
    assert [line[:11] for line in errors if "all is well" in line] == ["PolicyError", "ValueError:"]
    [refusal] = [json.loads(line) for line in refusals if line]
    assert refusal["reason"].startswith("labels = 'x\\n2026")
    assert refusal["reason"].isprintable()


def test_one_refused_ask_costs_two_short_lines(tmp_path: Path, site: Site, make_run: Any, base_folder: Path) -> None:
    """It used to be 60 KB, of a run with as many labels as fit."""
    run: RunConfig = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    asking = Asking(run, lambda: site)
    content = json.loads(run.canonical_json())
    content["task"]["labels"] = ["x" * 50] * 1100
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    ask = replace(asking.ask(0), run_json=text, run_sha256=sha256(text.encode()))
    assert kinds(asking.send(ask, "query.offer")) == ["declined"]
    written = sum(path.stat().st_size for path in tmp_path.glob("local/*"))
    assert 0 < written < 10_000
    assert not (tmp_path / "state" / "audit.jsonl").exists(), "a witness of the ledger, in which no server writes"


def test_the_reason_s_end_is_kept_for_it_names_the_remedy(tmp_path: Path) -> None:
    keep_refusal(tmp_path, PolicyError("z" * 60_000 + "; ask for another run"))
    [line, _] = _lines(tmp_path / "refusals.jsonl")
    reason = json.loads(line)["reason"]
    assert reason.endswith("; ask for another run")
    assert len(reason) <= 2000


def test_all_reasons_of_a_policy_have_room(tmp_path: Path) -> None:
    reasons = "; ".join(f"number {number} of the bounds is not set, and so it is refused" for number in range(20))
    keep_refusal(tmp_path, PolicyError(reasons))
    assert json.loads(_lines(tmp_path / "refusals.jsonl")[0])["reason"] == reasons


def _fail() -> None:
    try:
        raise KeyError("the first")
    except KeyError as error:
        raise RuntimeError("the second") from error


def test_an_error_that_is_none_of_ours_says_where_it_came_from_and_from_what(tmp_path: Path) -> None:
    try:
        _fail()
    except RuntimeError as error:
        keep_error(tmp_path / "local", error)
        expected = [line for line in "".join(traceback.format_exception(error)).splitlines() if '  File "' in line]
    lines = _lines(tmp_path / "local" / "errors.log")
    assert [line for line in lines if '  File "' in line] == expected
    assert [line for line in lines if line[:1].isupper()] == ["KeyError: 'the first'", "RuntimeError: the second"]


def test_an_error_of_ours_says_what_it_says_and_no_more(tmp_path: Path) -> None:
    try:
        raise LedgerError("put back the newest ledger.db")
    except LedgerError as error:
        keep_error(tmp_path / "local", error)
    [_, said, end] = _lines(tmp_path / "local" / "errors.log")
    assert (said, end) == ("LedgerError: put back the newest ledger.db", "")


def test_a_file_that_is_full_goes_on_in_a_new_one_and_the_last_four_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_MAX_BYTES", 1000)
    for number in range(100):
        keep_refusal(tmp_path, PolicyError(f"refusal {number}"))
        keep_error(tmp_path / "local", ValueError(f"error {number} " + "x" * 100))
    for path in (tmp_path / "refusals.jsonl", tmp_path / "local" / "errors.log"):
        files = [path, *(path.with_name(f"{path.name}.{number}") for number in (1, 2, 3, 4))]
        assert sorted(path.parent.glob(f"{path.name}*")) == files
        texts = [file.read_text(encoding="utf-8") for file in reversed(files)]
        assert all(len(text) <= 1000 for text in texts)
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
        numbers = [int(word) for word in "".join(texts).replace('"}', " ").split() if word.isdecimal()]
        assert numbers == list(range(numbers[0], 100)), "the newest, without a gap"


def test_an_entry_that_is_larger_than_a_file_may_be_is_still_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_MAX_BYTES", 10)
    for number in range(3):
        keep_refusal(tmp_path, PolicyError(f"refusal {number}"))
    assert "refusal 2" in _lines(tmp_path / "refusals.jsonl")[0]


def test_refusals_of_an_older_version_stay_in_the_audit_log_and_trouble_nobody(tmp_path: Path, site: Site) -> None:
    audit = tmp_path / "state" / "audit.jsonl"
    audit.write_text('{"time": 1, "event": "refused", "reason": "too many steps"}\n', encoding="utf-8")
    reopened = open_site(tmp_path / "site.toml")
    reopened.report(PolicyError("too many rounds"))
    assert len(audit.read_text(encoding="utf-8").splitlines()) == 1
