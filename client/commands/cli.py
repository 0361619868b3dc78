"""`confide client ...`: commands of an institution's administrator. Typer declarations; the work is elsewhere."""

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from confide.common.config.run import RunConfig

SiteOption = Annotated[Path, typer.Option("--site", metavar="SITE.toml", help="this institution's site.toml")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN.toml", help="the run that a study proposes")]
SITE = Path("site.toml")


def init() -> None:
    """Print a commented site.toml: every key, its default and its meaning. Redirect it to a file and edit it."""
    typer.echo(files("confide.client").joinpath("site.template.toml").read_text(encoding="utf-8"), nl=False)


def check(
    run_file: RunArgument,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="try another setting; may be repeated"),
    ] = None,
    site: SiteOption = SITE,
    as_json: JsonOption = False,
) -> None:
    """Tell beforehand whether a run would be accepted, its cost, and every reason to refuse it.

    Nothing is charged and nothing leaves. Exit code 3: the policy refuses; 4: the budget does; 1: too few lines of the
    data file can be used.
    """
    from confide.client.steward.approval import review

    verdict = review(_locked(run_file, site, overrides), site)
    typer.echo(json.dumps(verdict.as_json()) if as_json else verdict.text())
    if verdict.exit_code:
        raise typer.Exit(verdict.exit_code)


def approve(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="name of an offered study")],
    run_file: Annotated[
        Path | None, typer.Option("--run", metavar="RUN.toml", help="approve this run before it is offered")
    ] = None,
    sha256: Annotated[
        str,
        typer.Option(
            metavar="HASH",
            help="first digits of the run's hash, as you were told: compare 20 or more; another run is refused",
        ),
    ] = "",
    site: SiteOption = SITE,
) -> None:
    """Approve a run of a study, by the hash of everything in it. Another or a changed run needs another approval."""
    from confide.client.steward.approval import approve_run
    from confide.client.steward.offers import offered_run, require_hash

    run = _locked(run_file, site) if run_file else offered_run(site, study, sha256)
    require_hash(run, sha256)
    typer.echo(approve_run(run, study, site))


def decline(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="name of an offered study")],
    sha256: Annotated[str, typer.Option(metavar="HASH", help="first digits of the run's hash, if several wait")] = "",
    site: SiteOption = SITE,
) -> None:
    """Decline a run that waits for approval. `confide client approve` takes it back; nothing is charged either way."""
    from confide.client.steward.offers import decline_run, offered_run

    typer.echo(decline_run(site, offered_run(site, study, sha256)))


def studies(site: SiteOption = SITE, as_json: JsonOption = False) -> None:
    """List the studies that were offered, approved, opened or closed here."""
    from confide.client.steward.studies import list_studies
    from confide.common.aloud import hash_start

    listed = list_studies(site)
    if as_json:
        typer.echo(json.dumps(listed))
        return
    for item in listed:
        typer.echo(f"{item['study']}: {item['status']}, run {hash_start(item['run_sha256'])}, {item['steps']}")
    if not listed:
        typer.echo("none yet")


def ledger_show(site: SiteOption = SITE, as_json: JsonOption = False) -> None:
    """Show the spend on the people of this dataset, over all studies, and the budget left."""
    from confide.client.steward.ledger_report import ledger_facts, ledger_text

    facts = ledger_facts(site)
    typer.echo(json.dumps(facts) if as_json else ledger_text(facts))


def ledger_export(
    site: SiteOption = SITE,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="file to write [standard output]")] = None,
) -> None:
    """Write the ledger's rows as JSON lines, for anyone to recompute with `confide verify FILE`."""
    from confide.client.steward.ledger_report import export_lines
    from confide.common.private_file import write_public

    text = "".join(f"{line}\n" for line in export_lines(site))
    if out:
        write_public(out, text, "--out")
    else:
        typer.echo(text, nl=False)


def ledger_verify(site: SiteOption = SITE) -> None:
    """Check the live ledger: its chain, and that it is not older than its anchor, audit log and outbox."""
    from confide.client.site.installation import open_site

    rows = open_site(site).ledger.rows()
    typer.echo(f"{len(rows)} rows, chain whole; anchor, audit log and outbox agree")


def ledger_close(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="a study that is over")], site: SiteOption = SITE
) -> None:
    """Close a study: steps that were never reserved are free for other studies."""
    from confide.client.steward.ledger_report import close_study

    typer.echo(close_study(site, study))


def ledger_retire(
    site: SiteOption = SITE, yes: Annotated[bool, typer.Option("--yes", help="retire without asking")] = False
) -> None:
    """End this dataset's ledger: nothing is ever trained on these people again. This cannot be undone."""
    from confide.client.site.installation import open_site

    opened = open_site(site)
    name = opened.config.dataset.id
    if not yes:
        typer.confirm(f"Nothing will ever be trained on dataset {name!r} again. Retire it?", abort=True)
    opened.ledger.retire()
    typer.echo(f"dataset {name!r} is retired; its ledger stays for whoever wants to verify it")


def start(site: SiteOption = SITE) -> None:
    """Take part until stopped. The client answers what the policy allows, charges the ledger, and only calls out."""
    import logging
    import sys

    from confide.common.flower import prepare

    prepare()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stderr)
    for name in ("flwr", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from confide.client.service.process import serve

    serve(site)


def pause(site: SiteOption = SITE) -> None:
    """Answer no new ask, until `confide client resume`."""
    from confide.client.steward import pausing

    for line in pausing.pause(site):
        typer.echo(line)


def resume(site: SiteOption = SITE) -> None:
    """Answer new asks again."""
    from confide.client.steward import pausing

    typer.echo(pausing.resume(site))


def egress(site: SiteOption = SITE, as_json: JsonOption = False) -> None:
    """List every answer made from records that left this institution: time, size, hash, study and round."""
    from confide.client.steward.ledger_report import egress_rows

    rows: list[dict[str, Any]] = egress_rows(site)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        arrived = "taken" if row["acknowledged"] else "sealed"
        typer.echo(
            f"{row['time']}  {row['study']} round {row['round']} {row['what']}: {row['bytes']:,} bytes, "
            f"sha256 {row['sha256']}, {arrived}"
        )
    if not rows:
        typer.echo("nothing has left yet")


def _locked(run_file: Path, site: Path, overrides: list[str] | None = None) -> "RunConfig":
    from confide.client.config import load_site_config
    from confide.common.config.run import load_run, lock
    from confide.common.flower import prepare

    run = load_run(run_file, overrides)
    prepare()
    from confide.common.export.start import with_start
    from confide.common.model.base_models import find_model, hash_model
    from confide.common.model.families import with_targets

    if not run.adapter.start_sha256:  # else the study names it, and the adapter itself need not be here
        run = with_start(run)
    if run.model.sha256 and not run.adapter.needs_targets:
        return lock(run, run.model.sha256)
    base = find_model(run.at(run.model.base), load_site_config(site).models.dir)
    return lock(with_targets(run, base), hash_model(base))
