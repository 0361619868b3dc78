"""A run and records, as a caller in Python gives them: paths, dictionaries, datasets, tables."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from confide.common.config.run import RunConfig
from confide.common.config.toml import check
from confide.common.data.records import Record
from confide.common.durable import replace_durably
from confide.common.errors import InputError
from confide.simulations.studies.prepared import load

Run = str | Path | Mapping[str, Any] | RunConfig | None
Rows = Any  # a Dataset, a list of dictionaries, or a table of pandas or polars
Data = Rows | Mapping[str, Rows] | None
INSTITUTION = "institution"


def read_run(run: Run, changes: Iterable[str]) -> RunConfig:
    """Return a run from the path of a run.toml, a scenario's name, a dictionary of its sections, or as it is.

    Args:
        run: None is the default scenario.
        changes: as of ``--set``: "federation.num_rounds=10".

    Raises:
        InputError: names the fault.
    """
    if isinstance(run, Mapping | RunConfig):
        if list(changes):
            raise InputError("changes are for a run.toml or a scenario; put them into the dictionary or the RunConfig")
        return run if isinstance(run, RunConfig) else check(RunConfig, dict(run), "run")
    return load(None if run is None else Path(run), list(changes))


def with_data(run: RunConfig, data: Data, folder: Path) -> RunConfig:
    """Return a run whose simulation trains on given records, which are written to a file of their own.

    Args:
        run: any.
        data: all records, which `[simulation]` divides; or records by institution; or a DatasetDict of splits, whose
            "test" is the public test data. None: the run names its data.
        folder: for the files. Their names are hashes of their content, so the same data are written once.

    Raises:
        InputError: the data are of no form that is known, or empty.
    """
    if data is None:
        return run
    if isinstance(data, DatasetDict) and "train" in data:
        return _with_splits(run, data, folder)
    if isinstance(data, Mapping):
        rows = [{**row, INSTITUTION: str(name)} for name, own in data.items() for row in rows_of(own)]
        natural = {"partition": "natural", "by": INSTITUTION, "clients": None}
        return _with_section(run, _write(rows, folder), natural)
    return _with_section(run, _write(rows_of(data), folder), {})


def rows_of(data: Rows) -> list[Record]:
    """Return records of a dataset, a list or a table; a ClassLabel column gives its names."""
    if isinstance(data, Dataset):
        names = {key: feature.names for key, feature in data.features.items() if hasattr(feature, "names")}
        return [
            {key: _named(names[key], value) if key in names else value for key, value in row.items()} for row in data
        ]
    if hasattr(data, "to_dicts"):
        return list(data.to_dicts())
    if hasattr(data, "to_dict") and not isinstance(data, Mapping):
        return list(data.to_dict(orient="records"))
    if isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        return [dict(row) for row in data]
    raise InputError(
        f"data is a {type(data).__name__}, must be a Dataset, a DatasetDict, a list of dictionaries, a table, or a "
        "dictionary of these by institution"
    )


def _named(names: list[str], code: int | None) -> str | None:
    """Return a class's name; None for a missing label, which Hugging Face marks with -1."""
    return None if code is None or code < 0 else names[code]


def _with_section(run: RunConfig, path: Path, changes: dict[str, Any]) -> RunConfig:
    """Return a run whose `[simulation]` reads a file; its other settings stay."""
    section = run.simulation.model_dump() if run.simulation else {}
    content = run.model_dump(mode="json", exclude={"simulation"})
    content["simulation"] = {**section, "data": str(path), **changes}
    return check(RunConfig, content, "run").placed(run.places)


def _with_splits(run: RunConfig, splits: DatasetDict, folder: Path) -> RunConfig:
    """Return a run that trains on "train" and is tested on "test", if there is one."""
    if unknown := sorted(set(splits) - {"train", "test"}):
        raise InputError(f"data has splits {unknown}, must have train and test alone; leave the others out")
    if "test" in splits:
        evaluation = run.evaluation.model_copy(update={"data": str(_write(rows_of(splits["test"]), folder))})
        run = run.model_copy(update={"evaluation": evaluation})
    return _with_section(run, _write(rows_of(splits["train"]), folder), {})


def _write(rows: list[Record], folder: Path) -> Path:
    if not rows:
        raise InputError("data hold no record; give at least ten for each institution")
    try:
        text = "".join(json.dumps(row, ensure_ascii=False, default=_plain) + "\n" for row in rows)
    except (TypeError, AttributeError) as error:
        raise InputError(f"data hold a value without a form in JSON ({error}); use texts, numbers, lists") from None
    content = text.encode(errors="backslashreplace")  # half a character stays one, for the record's fault to be named
    path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        replace_durably(path, content)
    return path.absolute()


def _plain(value: Any) -> Any:
    """Return numbers and lists of NumPy, which tables hold, as those of Python."""
    return value.tolist()
