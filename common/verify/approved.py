"""The run that a folder says people approved: the text that has the stated hash, and the lock that repeats it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confide.common.verify.fields import Row, show
from confide.common.verify.files import parse, read

_NOT_APPROVED = ("simulation", "speed")  # sections of the lock that change no promise


def approval_problems(folder: Path, lock: Row, run_sha256: object) -> Iterator[str]:
    """Yield where a run's lock is not the run that has the stated hash.

    run.lock.json has the very text that is hashed, and run.lock.toml the same for people to read. Earlier versions
    wrote no run.lock.json. Where noise is shared there must be one: only the hash ties the keys to what people
    approved. The hash comes from privacy.json of the same folder. Only an institution's ledger shows that people
    approved it.
    """
    path = folder / "run.lock.json"
    if not path.exists():
        if lock.get("federation", {}).get("aggregation") == "secure-sum":
            yield "run.lock.json is missing: nothing says whose keys were approved"
        return
    text = read(path)
    if hashlib.sha256(text).hexdigest() != run_sha256:
        yield f"run.lock.json has not the hash {show(run_sha256)}, which privacy.json states"
    run = {name: value for name, value in lock.items() if name not in _NOT_APPROVED}
    if _without_none(parse(text, "run.lock.json")) != run:
        yield "run.lock.toml and run.lock.json are different runs"


def _without_none(value: Any) -> Any:
    """Return a JSON value as TOML has it, which knows no null."""
    return {k: _without_none(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value
