"""A run with real sites: the institutions' site files on one machine, with their data, policies and ledgers."""

import functools
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context

from confide.client.data.line_check import require_usable
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import Site, open_site
from confide.common.config.run import RunConfig
from confide.common.data.records import Record, read_public
from confide.common.errors import ConfideError, InputError
from confide.common.protocol.gate import size_problem
from confide.simulations.sites.simulated_sites import note_refusal


@dataclass(frozen=True)
class RealSites:
    """A map from nodes to the sites of site.toml files, in the order in which they were named.

    Attributes:
        sites: opened; their real ledgers are charged.
        refused: the last refusal of each institution.
    """

    sites: tuple[Site, ...]
    refused: dict[str, ConfideError] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the institutions."""
        return tuple(site.config.institution.name for site in self.sites)

    def __call__(self, context: Context) -> Site:
        """Return the site of a node."""
        return self.sites[int(context.node_config["partition-id"])]


def open_sites(paths: list[Path]) -> RealSites:
    """Open the sites of a run.

    Raises:
        InputError: a file is missing or wrong, or two files are of one institution.
        LedgerError: a ledger is not whole.
    """
    refused: dict[str, ConfideError] = {}
    sites: list[Site] = []
    for path in paths:
        site = open_site(path)
        name = site.config.institution.name
        if name in [other.config.institution.name for other in sites]:
            raise InputError(f"--site {path}: institution.name = {name!r} is that of another --site; names must differ")
        account = (site.config.state.dir.resolve(), site.config.dataset.id)
        if account in [(other.config.state.dir.resolve(), other.config.dataset.id) for other in sites]:
            raise InputError(f"--site {path}: its ledger is that of another --site; one dataset takes part once")
        sites.append(site.with_report(functools.partial(_report, refused, name, site)))
    return RealSites(tuple(sites), refused)


def _report(refused: dict[str, ConfideError], name: str, site: Site, error: BaseException) -> None:
    note_refusal(refused, name, error)
    site.report(error)


def read_public_test(run: RunConfig) -> dict[str, list[Record]]:
    """Return the public test share of `[evaluation] data`, which stays with the server; empty if none is named."""
    if run.evaluation.data is None:
        return {}
    return {"public": read_public(Path(run.at(run.evaluation.data)), run.task)[0]}


def require_lines(sites: RealSites, run: RunConfig) -> None:
    """Check that each site can use enough of its lines, as `confide client approve` does: only a person may ask this.

    Raises:
        ConfideError: a site cannot; the message names its institution.
    """
    for site in sites.sites:
        try:
            require_usable(site.config.dataset, [run], site.config.models.dir)
        except ConfideError as error:
            raise type(error)(f"{site.config.institution.name!r}: {error}") from None


def warning(sites: RealSites, run: RunConfig) -> list[str]:
    """Return the warning before such a run starts: the ledgers that it charges, and by how much."""
    lines = ["this run trains on real records and charges these ledgers, for ever:"]
    for site in sites.sites:
        account, cap, dataset = site.ledger.account(), cap_of(site.config.policy), site.config.dataset
        spent = account.epsilon_spent(cap.max_delta) if account.number else 0.0
        price = "WITHOUT PRIVACY" if run.privacy.unit == "none" else f"up to {run.num_steps} steps more"
        before = f"epsilon {spent:g} of {cap.max_epsilon:g} spent"
        if account.shares_noise:
            broken = account.epsilon_spent_if_broken(cap.max_delta)
            before += f" ({broken:g} of {cap.if_broken.max_epsilon:g} if its shared noise is broken)"
        lines.append(f"  {site.config.institution.name}: dataset {dataset.id!r}, {before}; {price}")
        if problem := size_problem(dataset.declared_units, run.local.nominal_units):
            lines.append(f"    a server would leave it out: {problem}")
    return lines
