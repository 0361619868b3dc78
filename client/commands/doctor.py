"""`confide client doctor`: obstacles that would keep this institution from taking part. Each check gives one finding.

Only a TLS handshake and one GET of /health are sent (`probe`). Findings in the data stay in ``local/doctor.txt``.
"""

import functools
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from confide.client.answers.proposed_runs import read_offers
from confide.client.config import SiteConfig, load_site_config
from confide.client.data.line_check import check_lines
from confide.client.service.probe import clock_ahead
from confide.client.site.enrolment import has_joined, kit_of
from confide.client.site.installation import open_site
from confide.client.steward.shared_noise import partners_compared
from confide.common.cli.machine import GIB, CheckResult, device, disk, finding, memory
from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, InputError
from confide.common.findings import Finding
from confide.common.flower import prepare
from confide.common.model.base_models import find_model, hash_model, models_here

_MAX_SECONDS_APART = 2.0


def examine(path: Path) -> Iterator[Finding]:
    """Make every check of a site, the slow ones last.

    Raises:
        InputError: site.toml cannot be used.
    """
    config, local = load_site_config(path), path.absolute().parent / "local"
    state = config.state.dir
    folders = [state, config.state.anchor, config.models.dir, local]
    yield finding("versions", _versions)
    yield from _server_and_clock(state)
    yield finding("ledger", lambda: _ledger(path))
    yield finding("disk", lambda: disk(folders))
    yield finding("memory", memory)
    yield finding("data", lambda: _data(config, local))
    yield finding("people", lambda: _people(path))
    yield finding("partners", lambda: partners_compared(_offered(config), open_site(path)))
    yield finding("base models", lambda: _base_models(config))
    yield finding("device", lambda: device(config.compute.device, config.compute.precision))
    yield finding("room on the device", lambda: _room(config))


def _versions() -> CheckResult:
    prepare()
    from confide.client.service.self_test import require_flower

    require_flower()
    named = ", ".join(f"{name} {version(name)}" for name in ("confide", "flwr", "torch"))
    return "ok", f"python {platform.python_version()}, {named}"


def _server_and_clock(state: Path) -> Iterator[Finding]:
    """Give two findings of one request."""
    if not has_joined(state):
        skipped = "none joined yet, so neither certificate nor clock was looked at; `confide client join ADDRESS`"
        yield Finding("server", "warning", skipped)
        return
    ahead: list[float | None] = []

    def server() -> CheckResult:
        kit = kit_of(state)
        ahead.append(clock_ahead(kit))
        return "ok", f"{kit.address} answers, with a certificate of the authority that the kit pins"

    yield finding("server", server)
    for seconds in ahead:
        yield finding("clock", functools.partial(_clock, seconds))


def _clock(ahead: float | None) -> CheckResult:
    """Judge a measure that is right to a second: 1 s apart is always ok, 3 s at least a warning, 4 s a problem."""
    if ahead is None:
        return "warning", "the server tells no time; see that this machine keeps its own by NTP"
    if abs(ahead) < _MAX_SECONDS_APART:
        return "ok", f"less than {_MAX_SECONDS_APART:g} s from the server's, as far as its answer tells"
    way = "ahead of" if ahead > 0 else "behind"
    text = f"about {abs(ahead):.0f} s {way} the server's, must be under {_MAX_SECONDS_APART:g} s; set it by NTP"
    return ("problem" if abs(ahead) >= _MAX_SECONDS_APART + 1 else "warning"), text


def _ledger(path: Path) -> CheckResult:
    rows = open_site(path).ledger.account().number
    return "ok", f"{rows} rows, chain whole; anchor, audit log and outbox agree"


def _data(config: SiteConfig, local: Path) -> CheckResult:
    """Check the data. Only counts are printed; lines and reasons are in a file that only its owner may read."""
    runs = _offered(config)
    found = check_lines(config.dataset, runs, config.models.dir)
    report = found.write(local)
    counts = (
        f"{len(found.broken)} of {found.num_lines} lines cannot be read, {len(found.unused)} would contribute nothing"
    )
    counts += found.several()
    if found.broken:
        return "problem", f"{counts}; no run is joined while a line is broken: mend those that {report} names"
    if few := found.too_few(config.dataset.min_usable_fraction):
        return "problem", f"{counts}: {report} says why; {'; '.join(few)}"
    if found.unused:
        return "warning", f"{counts}: {report} says why"
    later = "" if runs else "; labels are looked at once a run is offered"
    return "ok", f"{found.num_lines} lines can be used{found.several()}{later}"


def _people(path: Path) -> CheckResult:
    """Check that no person is counted under another dataset id. Joining refuses that; a running round does not."""
    from confide.client.data.units import names_of

    try:
        site = open_site(path)
        runs = _offered(site.config)
        records = [(record, run.task) for run in runs for record in site.data.records(run.task)]
    except ConfideError:
        return "warning", "were not looked at: ledger or data cannot be read"
    if not runs:
        return "ok", "are looked at once a run is offered"
    people = {names for record, task in records if (names := names_of(record, task, site.data.secret))}
    found = len(site.data.claims.elsewhere(site.config.dataset.id, people))
    if not found:
        return "ok", "nobody is known under another dataset id of this state folder"
    return "problem", (
        f"{found} names are another dataset id's of this state folder: no run is joined with them, and a run that was "
        "joined before they came counts them here as there; use that id, or take them out of this file"
    )


def _offered(config: SiteConfig) -> list[RunConfig]:
    """Return the newest run of each study: earlier ones are over, or were replaced."""
    offered = {run.study.name: run for run in reversed(read_offers(config.state.dir / "offers"))}
    return [run for name, run in offered.items() if name in config.policy.studies]


def _base_models(config: SiteConfig) -> CheckResult:
    """Check that each base model which the policy names by its hash, or a run on offer needs, is here and unchanged."""
    allowed = set(config.policy.base_models)
    if not allowed:
        return "warning", "policy.base_models is empty: every run is refused"
    missing, here = allowed - {"any"}, list[str]()
    for folder in models_here(config.models.dir):
        if not missing and here:
            break  # hashing a large one takes its time
        missing.discard(sha256 := hash_model(folder))
        here.append(f"{folder} ({sha256})")
    wrong = [f"policy.base_models names {sha256}, which is not here" for sha256 in sorted(missing)]
    wrong += [why for run in _offered(config) if (why := _unfit(run, config.models.dir))]
    listed = f"here: {', '.join(here) or 'none'}"
    if wrong:
        return "problem", f"{'; '.join(wrong)}; {listed}"
    return ("ok" if here else "warning"), listed


def _unfit(run: RunConfig, models: Path) -> str | None:
    """Return the fault of the base model of a run on offer, or None."""
    try:
        found = hash_model(find_model(run.model.base, models))
    except InputError as error:
        return f"study {run.study.name}: {error}"
    if found == run.model.sha256:
        return None
    return f"study {run.study.name}: {run.model.base!r} hashes to {found}, must be {run.model.sha256}; copy it again"


def _room(config: SiteConfig) -> CheckResult:
    """Check that base and fullest step of each run on offer fit the device: its whole memory, and what is free now."""
    from confide.common.model.memory import fit_of

    runs = [run for run in _offered(config) if not _unfit(run, config.models.dir)]
    if not runs:
        return "ok", "is looked at once a run is offered whose base model is here"
    fits = [(run, fit_of(run, find_model(run.model.base, config.models.dir), config.compute)) for run in runs]
    if wrong := [f"study {run.study.name}: {why}" for run, fit in fits if (why := fit.problem(run.model.base))]:
        return "problem", "; ".join(wrong)
    need, free = max(fit.base + fit.step for _, fit in fits), fits[0][1].memory.free
    text = f"a run on offer takes about {need / GIB:.1f} GiB, {fits[0][1].device} has {free / GIB:.1f} GiB free"
    return ("ok", text) if need <= free else ("warning", f"{text}; free some, unless it is this client that holds it")
