"""`confide data ...`: commands about an institution's own records. They work here and send nothing."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from confide.client.config import SiteConfig, load_site_config
from confide.client.data.records import columns_of
from confide.common.cli.adapters import BaseOption, FolderArgument, columns_named
from confide.common.config.run import RunConfig, load_run
from confide.common.errors import InputError
from confide.common.flower import prepare
from confide.common.private_file import write_private
from confide.common.tasks import Task

if TYPE_CHECKING:
    from confide.common.curation.form import Form

FileArgument = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="records: .jsonl, .csv, .tsv, .parquet or a folder [of --site]")
]
RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="FILE", help="run.toml: kind of task, labels, columns, base model")
]


def check(
    file: FileArgument = None,
    run: RunOption = None,
    site: Annotated[Path | None, typer.Option(metavar="FILE", help="site.toml: columns, codes and groups")] = None,
    columns: Annotated[str, typer.Option(help="names of the file's columns: text=note,label=code,group=patient")] = "",
    test: Annotated[
        Path | None, typer.Option(metavar="FILE", help="public test file whose texts should not be here")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write the report as a page too")] = None,
) -> None:
    """Check a file of records before a run: faults, doubles, balance, languages, label noise, identifiers, units.

    Nothing is sent. Curating records by this report is not covered by the guarantee. Exit code 0: the file can be used;
    1: a check found something that stops use.
    """
    config = load_site_config(site) if site else None
    path = file or (config.dataset.path if config else None)
    if path is None:
        raise InputError("data check: no file; name one, or a site.toml with --site")
    prepare()
    from confide.common.curation.check import check_data, report_text
    from confide.common.curation.page import write_page

    settings = load_run(run) if run else _offered(config)
    form = _form(path, settings, config, columns_named(columns))
    report = check_data(path, replace(form, tokenizer=_tokenizer(settings, config)), test)
    if html:
        write_page(html, report)
    typer.echo(report_text(report))
    if report.stops():
        raise typer.Exit(1)


def _offered(config: SiteConfig | None) -> RunConfig | None:
    """Return the newest run that the server offered; None if there is none, or no site."""
    from confide.client.answers.proposed_runs import read_offers

    return next(iter(read_offers(config.state.dir / "offers")), None) if config else None


def _form(path: Path, run: RunConfig | None, config: SiteConfig | None, columns: dict[str, str]) -> "Form":
    """Return how the file is read: by site.toml, else by the run, else by its columns; ``columns`` come first."""
    from confide.common.curation.form import form_of, guessed_form

    names = dict(run.simulation.columns) if run and run.simulation else {}
    if config:
        names = columns_of(config.dataset, config.dataset.columns)
    names |= columns
    form = form_of(run.task, names) if run else guessed_form(_first_record(path).keys(), names, str(path))
    if config is None:
        return form
    data = config.dataset
    return replace(
        form,
        codes=data.labels,
        max_chars=data.max_chars,
        least_usable=data.min_usable_fraction,
        records_of_a_unit=data.most_records,
    )


def _first_record(path: Path) -> dict[str, Any]:
    """Return the first record that can be read; `InputError` says why the first line cannot, where there is none."""
    from confide.common.data.records import inspect_rows

    why = ""
    for number, row in inspect_rows(path):
        if not isinstance(row, str):
            return row
        why = why or f"line {number}: {row}"
    raise InputError(f"{path}: holds no record that can be read; {why}" if why else f"{path}: holds no records")


def _tokenizer(run: RunConfig | None, config: SiteConfig | None) -> Any:
    """Return the tokenizer of the run's base; None without a run, or if the base is not on this machine."""
    if run is None:
        return None
    from confide.common.model.base_models import find_model, load_tokenizer, loading

    try:
        with loading(find_model(run.at(run.model.base), config.models.dir if config else None)) as visible:
            return load_tokenizer(visible)
    except (InputError, OSError):
        return None


def suggest(
    folder: FolderArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="records; answers in it are not read")],
    number: Annotated[int, typer.Option(min=1, max=10_000, help="records to choose")] = 100,
    columns: Annotated[str, typer.Option(help="names of the file's columns: text=note")] = "",
    base: BaseOption = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="file to write [standard output]")] = None,
) -> None:
    """Choose records to label next: those of which a finished adapter is unsure, of many sorts, as JSON lines.

    Each comes back whole, with its number in the file and its uncertainty from 0 to 1. Nothing is sent. Choosing
    records so is not covered by the guarantee.
    """
    names = columns_named(columns)
    prepare()
    from confide.common.curation.suggest import chosen_records, require_measure
    from confide.common.data.records import MAX_CHARS, read_rows, select
    from confide.common.export.load import find_run, load_adapter

    task: Task = find_run(folder)[1].task
    require_measure(task)
    rows = read_rows(file)
    if taken := sorted({"number", "uncertainty"}.intersection(chain.from_iterable(rows))):
        raise InputError(f"{file}: has a column {taken[0]!r}, and the output adds one of that name; rename it")
    own = select(rows, {name: names.get(name, name) for name in task.inputs()}, str(file), "--columns")
    chosen = chosen_records(load_adapter(folder, base)[1], [task.cut(record, MAX_CHARS) for record in own], number)
    if not chosen:
        raise InputError(f"{file}: no record that the task can read; `confide data check` says why")
    lines = [{**rows[place], "number": place + 1, "uncertainty": round(value, 4)} for place, value in chosen]
    text = "".join(f"{json.dumps(line, ensure_ascii=False, default=str)}\n" for line in lines)
    if out:
        write_private(out, text, "--out")
    else:
        typer.echo(text, nl=False)
