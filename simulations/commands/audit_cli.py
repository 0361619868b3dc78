"""`confide audit`: its typer declaration and its text."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from confide.common.folders import require_new
from confide.simulations.commands.cli import JsonOption, RunArgument, SetOption

if TYPE_CHECKING:
    from confide.common.config.run import RunConfig


def audit(  # noqa: PLR0913 - one parameter an option
    run_file: RunArgument = None,
    overrides: SetOption = None,
    canaries: Annotated[int, typer.Option(min=200, max=20_000, help="made-up units in one run together")] = 4000,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="for audit.html and audit.json, new or empty [runs/audit-NAME]")
    ] = None,
    texts: Annotated[
        int, typer.Option(min=0, max=2000, help="made-up texts in one more simulation of the run; 0: none")
    ] = 200,
    finished: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="audit this simulation on public texts, and look for its members"),
    ] = None,
    shadows: Annotated[
        int,
        typer.Option(min=0, max=1000, help="with --finished: so many more simulations to compare with (LiRA); even"),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Attack a run on this machine, and show how much of its epsilon the attacks can prove.

    The attacks go through the code that clients run, with made-up canaries. The data of [simulation] are read only to
    carry the run out with made-up texts among them. The command ends with 1 if an attack proves more than the run
    states (docs/audit.md).
    """
    run, folder = _run_and_folder(run_file, overrides or [], finished, shadows, out)
    from confide.simulations.audit.mechanism import audit_mechanism
    from confide.simulations.audit.verdicts import Effort

    typer.echo(f"{run.study.name}: attacking its step with {canaries} made-up canaries", err=True)
    found = audit_mechanism(run, Effort(canaries=canaries))
    facts = _facts(run, found.as_json()) | _of_one_round(run) | _of_secrets(run)
    if texts and run.simulation:
        facts["texts"] = _attacked_texts(run, texts)
    if finished:
        facts |= {"membership": _found_members(finished, shadows), "finished": finished.name}
    _write(folder, facts)
    typer.echo(json.dumps(facts) if as_json else _text(facts, folder))
    if not _holds(facts):
        raise typer.Exit(1)


def _run_and_folder(
    run_file: Path | None, overrides: list[str], finished: Path | None, shadows: int, out: Path | None
) -> tuple["RunConfig", Path]:
    """Return the locked run to attack, and the folder for the page; `InputError` if options do not fit together."""
    from confide.common.errors import InputError
    from confide.simulations.studies.prepared import load, locked, simulated
    from confide.simulations.studies.remembered import Checked

    if shadows and not finished:
        raise InputError(
            f"--shadows {shadows} without --finished DIR: name the simulation whose members are looked for"
        )
    if finished and (run_file or overrides):
        raise InputError(
            f"--finished {finished} beside a run.toml or --set: the run of that folder is attacked; leave them out"
        )
    if finished:
        from confide.simulations.audit.membership import require_attackable

        require_attackable(finished, shadows)
    loaded = simulated(load(finished / "run.lock.toml" if finished else run_file, overrides))
    folder = out or Path("runs") / f"audit-{finished.name if finished else loaded.study.name}"
    require_new(folder)
    return locked(loaded, Checked()), folder


def _attacked_texts(run: "RunConfig", count: int) -> dict[str, Any]:
    from confide.simulations.audit.text_canaries import audit_texts

    typer.echo(
        f"{run.study.name}: one simulation of it with {count} made-up texts, half of them in by a coin", err=True
    )
    return audit_texts(run, count).as_json()


def _found_members(finished: Path, shadows: int) -> dict[str, Any]:
    """Look for the members of a finished simulation, and tell its report."""
    from confide.simulations.audit.membership import attack_finished
    from confide.simulations.studies.reported import add_to_report

    members = attack_finished(finished, shadows, lambda line: typer.echo(line, err=True)).as_json()
    if not add_to_report(finished, {name: members[name] for name in ("sentence", "shadow_runs")}):
        typer.echo(f"{finished}/report.html stays as it is: it is of an earlier version of Confide", err=True)
    return members


def _holds(facts: dict[str, Any]) -> bool:
    return bool(facts["mechanism"]["holds"] and ("texts" not in facts or facts["texts"]["holds"]))


def _facts(run: "RunConfig", mechanism: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": run.study.name,
        "run_sha256": run.sha256(),
        "unit": run.privacy.unit,
        "target_delta": run.privacy.target_delta,
        "mechanism": mechanism,
    }


def _of_one_round(run: "RunConfig") -> dict[str, Any]:
    """Return what attacks on a single text's round bring back."""
    from confide.common.model.warm_model import warm_model
    from confide.simulations.reconstruction.heads import attack_head
    from confide.simulations.reconstruction.inversion import invert
    from confide.simulations.reconstruction.matching import match

    typer.echo("attacking the rounds of single made-up texts, a few minutes at most", err=True)
    model = warm_model(run, run.speed)
    return {
        "inversion": invert(run, model).as_json(),
        "matching": match(run, model).as_json(),
        "head": attack_head(run, model).as_json(),
    }


def _of_secrets(run: "RunConfig") -> dict[str, Any]:
    """Return the exposure of secrets; only models that write are trained for it."""
    from confide.simulations.reconstruction.exposure import expose

    if run.task.longest_answer():
        typer.echo("training on made-up texts with secrets, with privacy and without, a few minutes each", err=True)
    return {"exposure": expose(run).as_json()}


def _write(folder: Path, facts: dict[str, Any]) -> None:
    from confide.simulations.audit.page import write_page

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    write_page(folder / "audit.html", facts)


def _text(facts: dict[str, Any], folder: Path) -> str:
    mechanism = facts["mechanism"]
    lines = ["epsilon   stated   proved by the best attack"]
    lines += [_line(one, one["observer"]) for one in mechanism["observers"]]
    if "texts" in facts:
        lines.append(_line(facts["texts"], f"{facts['texts']['canaries']} made-up texts, {facts['texts']['observer']}"))
    verdict = (
        "no attack passes what this run states"
        if _holds(facts)
        else "WHAT THIS RUN STATES DOES NOT HOLD on this installation: do not run it, and report this"
    )
    lines += [facts["membership"]["sentence"]] if "membership" in facts else []
    lines += _one_round_text(facts) + _secrets_text(facts["exposure"])
    lines.append(f"{verdict} (confidence {100 * mechanism['confidence']:g} %, {mechanism['seconds']:g} s)")
    return "\n".join([*lines, f"page: {folder / 'audit.html'}"])


def _line(one: dict[str, Any], seen_by: str) -> str:
    mark = "" if one["holds"] else "   REFUTED"
    return f"  {one['stated_epsilon']:13.4f}{one['epsilon_at_least']:12.2f}{mark}   {seen_by}"


def _one_round_text(facts: dict[str, Any]) -> list[str]:
    """Return a line for each attack on the rounds of single texts."""
    inversion, matching, head = facts["inversion"], facts["matching"], facts["head"]
    of_tokens = "of {tokens} tokens of {texts} texts, each alone in its round".format
    return [
        _came_back("tokens by span", inversion["void"], of_tokens(**inversion), inversion),
        _came_back("tokens by search", matching["void"], of_tokens(**matching), matching["shares"]),
        *(
            [_came_back("labels by the head", None, f"of {head['texts']} texts", head["labels"])]
            if head["labels"]
            else []
        ),
        _came_back(
            "texts by the head", head["void"], "of {texts}, each among {candidates}".format(**head), head["named"]
        ),
    ]


def _came_back(name: str, void: str | None, of: str, shares: dict[str, float] | None) -> str:
    if void or shares is None:
        return f"{name}: not tried, {void}"
    numbers = f"{shares['with_noise']:.0%} came back, {shares['without_noise']:.0%} without privacy"
    return f"{name}: {numbers}, {shares['chance']:.0%} by chance; {of}"


def _secrets_text(facts: dict[str, Any]) -> list[str]:
    """Return a line for each number of units that a secret is in; nothing for kinds that write no texts."""
    line = (
        "secrets in {copies} of {units} units: exposure {bits:.1f} of {most:.0f} bits, {plain:.1f} without privacy; "
        "written by the model: {told} of {secrets}, {open_told} without privacy"
    )
    return [
        line.format(**facts | mine, plain=unprotected["bits"], open_told=unprotected["told"])
        for mine, unprotected in zip(facts["private"], facts["open"], strict=True)
    ]
