"""`confide verify` ends without a traceback, whatever it is given."""

import copy
import json
import math
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sum_runs import SumRun
from support.verifying import WHOLE_SPENT, as_lines, chained, first_line, require_unreadable, run_verify, whole_rows

_FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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
    assert (output + errors).encode(), "it can be printed"
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


def _change(content: Any, data: st.DataObject) -> None:
    """Change one place of a document: another value, its fields as a list of pairs, or in another table."""
    place, last = content, data.draw(st.sampled_from(sorted(content)))
    while _keys(place[last]) and data.draw(st.booleans()):
        place = place[last]
        last = data.draw(st.sampled_from(_keys(place)))
    value, how = place[last], data.draw(st.sampled_from(["weird", "pairs", "moved"]))
    if how == "pairs" and isinstance(value, dict):
        place[last] = [[name, item] for name, item in value.items()]
    elif how == "moved":
        tables = [one for one in content.values() if isinstance(one, dict)]
        data.draw(st.sampled_from([{}, *tables]))[str(last)] = place.pop(last)
    else:
        place[last] = copy.deepcopy(data.draw(_WEIRD))  # a later change may write into it


def _keys(value: Any) -> list[Any]:
    return sorted(value) if isinstance(value, dict) else [*range(len(value))] if isinstance(value, list) else []


def _as_toml(content: Any) -> str:
    """Return what TOML can hold of it: no null, and no half of a character."""
    return tomli_w.dumps(_without_none(content)).encode("utf-8", "replace").decode()


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value if item is not None] if isinstance(value, list) else value


@settings(_FUZZ, max_examples=200)
@given(st.booleans(), st.data())
def test_any_change_of_a_lock_ends(sum_run: SumRun, whole_sum_run: SumRun, has_json: bool, data: st.DataObject) -> None:
    content = tomllib.loads((whole_sum_run.folder / "run.lock.toml").read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 4))):
        _change(content, data)
    (sum_run.folder / "run.lock.toml").write_text(_as_toml(content), encoding="utf-8")
    (sum_run.folder / "run.lock.json").unlink(missing_ok=True)
    if has_json:
        shutil.copy(whole_sum_run.folder / "run.lock.json", sum_run.folder)
    _ends(run_verify(sum_run.folder))


@_FUZZ
@given(st.sampled_from(["run.lock.json", "privacy.json", "rounds/statements/0003.json"]), st.data())
def test_any_change_of_a_sum_s_files_ends(
    sum_run: SumRun, whole_sum_run: SumRun, name: str, data: st.DataObject
) -> None:
    content = json.loads((whole_sum_run.folder / name).read_text(encoding="utf-8"))
    _change(content, data)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    (sum_run.folder / name).write_text(text, encoding="utf-8")
    _ends(run_verify(sum_run.folder))
    shutil.copy(whole_sum_run.folder / name, sum_run.folder / name)


@_FUZZ
@given(st.data())
def test_any_change_of_an_envelope_ends(sum_run: SumRun, whole_sum_run: SumRun, data: st.DataObject) -> None:
    content = json.loads((whole_sum_run.folder / "rounds/statements/0003.json").read_text(encoding="utf-8"))
    member = data.draw(st.sampled_from(content["members"]))
    envelope = json.loads(member[0])
    _change(envelope, data)
    member[0] = json.dumps(envelope, sort_keys=True, separators=(",", ":"))
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    (sum_run.folder / "rounds/statements/0003.json").write_text(text, encoding="utf-8")
    assert _ends(run_verify(sum_run.folder)) == 1 or envelope == json.loads(json.dumps(envelope))


@pytest.mark.parametrize("section", ["study", "model", "federation", "privacy", "local", "evaluation"])
def test_a_section_that_is_no_table_is_one_line(section: str, sum_run: SumRun) -> None:
    path = sum_run.folder / "run.lock.toml"
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    content[section] = [[name, value] for name, value in content.get(section, {}).items()]
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    (sum_run.folder / "run.lock.json").unlink()
    result = run_verify(sum_run.folder)
    require_unreadable(result)
    assert f"run.lock.toml: {section} must be a table" in result[2]


def test_a_field_that_stands_in_another_section_ends(sum_run: SumRun) -> None:
    def move(content: Any) -> None:
        content["local"]["min_clients"] = content["federation"].pop("min_clients")

    sum_run.edit_lock(move)
    assert _ends(run_verify(sum_run.folder)) == 1
