"""`confide verify` ends without a traceback, whatever it is given."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.verifying import WHOLE_SPENT, as_lines, chained, first_line, require_unreadable, run_verify, whole_rows

_FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_ODD_NUMBERS = [0, -1, 2, 10**30, -(10**400), 0.5, -0.0, 1e308, math.nan, math.inf]
_WEIRD = st.sampled_from(
    [*_ODD_NUMBERS, None, True, False, "", "x" * 999, "\ud800\x1b", "record", "os", "0" * 64, [], {}, [[]], {"": {}}]
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, item in inner for found in _paths(item, (*path, key))]


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    *above, last = path
    for key in above:
        value = value[key]
    changed = value[last] is not new and (value[last] != new or type(value[last]) is not type(new))
    value[last] = new
    return changed


def _ends(result: tuple[int, str, str]) -> int:
    code, output, errors = result
    assert code in (0, 1, 2)
    if code == 2:
        require_unreadable(result)
    else:
        assert "Traceback" not in output + errors
    return code


@_FUZZ
@given(st.binary(max_size=300), st.sampled_from([b"", b"SQLite format 3\0", b'{"format": "confide-ledger-1"}\n']))
def test_any_bytes_are_no_ledger(tmp_path: Path, content: bytes, start: bytes) -> None:
    (tmp_path / "file").write_bytes(start + content)
    assert _ends(run_verify(tmp_path / "file")) != 0


@_FUZZ
@given(st.data())
def test_any_change_of_a_row_is_found(tmp_path: Path, data: st.DataObject) -> None:
    lines = [first_line(WHOLE_SPENT), *chained(whole_rows())]
    path = data.draw(st.sampled_from(_paths(lines[1:])))
    changed = _put(lines[1:], path, data.draw(_WEIRD)) if len(path) > 1 else False
    (tmp_path / "file").write_text(as_lines(*lines), encoding="utf-8")
    assert _ends(run_verify(tmp_path / "file")) != 0 or not changed


@_FUZZ
@given(st.data())
def test_any_change_with_new_hashes_ends(tmp_path: Path, data: st.DataObject) -> None:
    content = [first_line(WHOLE_SPENT), *whole_rows()]
    _put(content, data.draw(st.sampled_from([path for path in _paths(content) if len(path) > 1])), data.draw(_WEIRD))
    (tmp_path / "file").write_text(as_lines(content[0], *chained(content[1:])), encoding="utf-8")
    _ends(run_verify(tmp_path / "file"))


@_FUZZ
@given(st.data())
def test_any_change_of_a_run_directory_ends(folder: Path, run_folder: Path, data: st.DataObject) -> None:
    content = json.loads((run_folder / "privacy.json").read_text(encoding="utf-8"))
    _put(content, data.draw(st.sampled_from(_paths(content))), data.draw(_WEIRD))
    (folder / "privacy.json").write_text(json.dumps(content), encoding="utf-8")
    _ends(run_verify(folder))


@_FUZZ
@given(st.sampled_from(["privacy.json", "events.jsonl", "metrics.jsonl", "run.lock.toml"]), st.data())
def test_any_damage_of_a_run_directory_ends(folder: Path, run_folder: Path, name: str, data: st.DataObject) -> None:
    content = bytearray((run_folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
    (folder / name).write_bytes(content)
    _ends(run_verify(folder))
    shutil.copy(run_folder / name, folder / name)
