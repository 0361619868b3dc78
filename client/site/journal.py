"""Errors and refusals at an institution, kept there in files that no server can fill.

local/errors.log       every error with its origin; may quote records
state/refusals.jsonl   refusals with their reasons

A full file is continued in a new one. The last few stay beside it, as NAME.1 (the newest) to NAME.4.
"""

import contextlib
import itertools
import json
import time
import traceback
from pathlib import Path

from confide.common.durable import append_durably
from confide.common.errors import ConfideError
from confide.common.shown import shown

_MAX_BYTES, _MAX_FILES = 2**20, 5  # bytes of one file, files of one name
_MAX_REASON = 2000  # characters: room for all bounds of a policy
_MAX_FRAMES, _MAX_CAUSES = 40, 5


def keep_refusal(state: Path, error: ConfideError) -> None:
    """Write down the reason of a refusal."""
    line = {"time": int(time.time()), "event": "refused", "reason": shown(error, _MAX_REASON)}
    _append(state / "refusals.jsonl", json.dumps(line))


def keep_error(local: Path, error: BaseException) -> None:
    """Write down an error with its origin. For an error of ours only its text is kept, which names the remedy."""
    local.mkdir(exist_ok=True, mode=0o700)
    told = [_said(error)] if isinstance(error, ConfideError) else _traced(error)
    _append(local / "errors.log", "\n".join([time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), *told]))


def _traced(error: BaseException) -> list[str]:
    """Return the origin of an error, after its causes. The frames are of our code, and printed as Python does."""
    causes, one = list[BaseException](), error.__cause__ or error.__context__
    while one is not None and len(causes) < _MAX_CAUSES:
        causes.append(one)
        one = one.__cause__ or one.__context__
    lines = []
    for each in [*reversed(causes), error]:
        lines += [frame.rstrip("\n") for frame in traceback.format_tb(each.__traceback__, limit=-_MAX_FRAMES)]
        lines.append(_said(each))
    return lines


def _said(error: BaseException) -> str:
    """Return name and text in one line: a server's words in it must not look like lines of ours."""
    return f"{type(error).__name__}: {shown(error, _MAX_REASON)}"


def _append(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size + len(text.encode()) >= _MAX_BYTES:
            _make_room(path)
    append_durably(path, text)


def _make_room(path: Path) -> None:
    """Rename each file to the next older one; the oldest is lost. Another process may do the same at once."""
    names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, _MAX_FILES))]
    for newer, older in reversed(list(itertools.pairwise(names))):
        with contextlib.suppress(FileNotFoundError):
            newer.rename(older)
