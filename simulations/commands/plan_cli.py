"""`confide plan`: its typer declaration and its text."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from confide.simulations.commands.cli import JsonOption, RunArgument, SetOption

if TYPE_CHECKING:
    from confide.common.config.run import RunConfig


def plan(
    run_file: RunArgument = None,
    overrides: SetOption = None,
    noise_multiplier: Annotated[
        float | None, typer.Option(min=0.1, help="compute the epsilon that this noise gives")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="also measure time and memory here: 20 local steps on made-up texts, evenly of all lengths up to "
            "max_length",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the cost and the privacy of a run, before any data is touched."""
    settings = [*(overrides or []), *([f"privacy.noise_multiplier={noise_multiplier}"] if noise_multiplier else [])]
    from confide.common.errors import InputError
    from confide.simulations.studies.prepared import load, locked, planned

    loaded = planned(load(run_file, settings))
    from confide.simulations.studies.plan import measure as measure_steps
    from confide.simulations.studies.plan import plan_facts
    from confide.simulations.studies.remembered import Remembered

    run = locked(loaded, Remembered())
    try:
        facts = plan_facts(run, None if loaded.privacy.noise_multiplier else loaded.privacy.target_epsilon)
    except ValueError as error:
        raise InputError(str(error)) from None
    if measure:
        facts |= measure_steps(run)
    typer.echo(json.dumps(facts) if as_json else _plan_text(run, facts))


def _plan_text(run: "RunConfig", facts: dict[str, Any]) -> str:
    from confide.simulations.studies.plan import MOST_HEAD_NOISE

    lines = [
        f"{run.study.name}: {facts['num_steps']} steps, each {run.privacy.unit} drawn with probability "
        f"{facts['sampling_probability']:g}, noise multiplier {facts['noise_multiplier']}",
        f"  epsilon {facts['epsilon']} at delta {facts['target_delta']:g} (PLD; RDP says {facts['epsilon_rdp']})"
        f"{_condition(facts['secure_sum'])}",
        f"  {facts['signal_to_noise_share']:.0%} of the best possible signal-to-noise ratio at this epsilon",
        f"  {facts['bytes_per_client_round']:,} bytes from each institution in each round",
    ]
    lines += _sum_text(facts["secure_sum"]) if facts["secure_sum"] else []
    if facts["head_noise"] > MOST_HEAD_NOISE:
        lines.append(
            f"  warning: the noise on the head is {facts['head_noise']:g}, should be at most {MOST_HEAD_NOISE:g}, so "
            "the run may learn little; take more units, institutions or rounds, or a larger epsilon"
        )
    if not facts["head_noise"]:
        lines.append("  no head is trained, so what the noise leaves of the signal is not estimated: simulate it first")
    if "seconds_per_round" in facts:
        on_gpu = f" and {facts['peak_gpu_memory_mb']:.0f} MB on a GPU" if facts["peak_gpu_memory_mb"] else ""
        lines.append(
            f"  {facts['seconds_per_round']} s for a round of one institution, peak memory "
            f"{facts['peak_memory_mb']:.0f} MB{on_gpu}, on this machine, for texts of all lengths up to max_length = "
            f"{run.task.max_length}"
        )
    lines += ["", "  epsilon   noise   signal share   attacker finds at most (at 1 % false alarms)"]
    lines += [_row_text(row) for row in facts["table"]]
    return "\n".join(lines)


def _condition(shared: dict[str, Any] | None) -> str:
    """Return on what the first epsilon depends where institutions share the noise."""
    if shared is None:
        return ""
    return f", if at most {shared['max_colluding']} members of each sum collude"


def _sum_text(facts: dict[str, Any]) -> list[str]:
    """Return what shared noise promises, each number with its condition, and what other choices would."""
    num, least, first = facts["institutions"], facts["min_clients"], _shown(facts["epsilon"])
    found = facts["attack_true_positive_rate_if_broken"]
    last = "" if found is None else f", {found:.2%} by the last"
    return [
        f"  {num} institutions share the noise. Who is in league with the server, or leaves out its noise, colludes:",
        *(f"    epsilon {_shown(value)} if {number} do" for number, value in facts["colluding"].items()),
        f"    epsilon {_shown(facts['epsilon_if_broken'])} if all others do, or if the secure sum is broken",
        f"    an attacker finds at most {facts['attack_true_positive_rate']:.2%} by epsilon {first}{last} (at 1 % "
        "false alarms)",
        f"    a round needs {least} of them (min_clients), so it goes on while {num - least} are away",
        f"    the noise on the sum is {facts['noise_against_local']:.1%} of what it is if each adds its own for "
        f"epsilon {first}",
        "  other choices, for the same target_epsilon and target_epsilon_if_broken:",
        "    min_clients  max_colluding  noise (this run: 100 %)  epsilon  if broken",
        *(_choice_text(choice) for choice in facts["choices"]),
    ]


def _choice_text(choice: dict[str, Any]) -> str:
    return (
        f"    {choice['min_clients']:11}  {choice['max_colluding']:13}  {choice['noise_against_this_run']:23.1%}  "
        f"{_shown(choice['epsilon']):>7}  {_shown(choice['epsilon_if_broken']):>9}"
    )


def _shown(epsilon: float | None) -> str:
    """Return an epsilon, which was rounded up to four digits after the point; None is above what any policy allows."""
    return "above 100" if epsilon is None else f"{epsilon:.7g}"


def _row_text(row: dict[str, Any]) -> str:
    if row["noise_multiplier"] is None:
        return f"  {row['epsilon']:7g}   not reached by any noise"
    return (
        f"  {row['epsilon']:7g} {row['noise_multiplier']:7.3f} {row['signal_to_noise_share']:13.0%} "
        f"{row['attack_true_positive_rate']:19.2%}"
    )
