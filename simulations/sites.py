"""A simulated institution as a site: the settings that a real one would have in its site.toml."""

import functools
import hashlib
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context

from confide.client.site_config import (
    ComputeSection,
    DatasetSection,
    InstitutionSection,
    PolicySection,
    Site,
    SiteConfig,
)
from confide.common.records import Row
from confide.common.run_config import RunConfig
from confide.simulations.partition import gather


def declared_size(num_units: int) -> int:
    """What a simulated institution declares in public: its size to one significant figure.

    It stands for the round number that an administrator would type by hand; a real institution's is never computed.

    >>> declared_size(2137)
    2000
    """
    magnitude: int = 10 ** max(0, len(str(num_units)) - 1)
    return max(1, round(num_units / magnitude) * magnitude)


@dataclass(frozen=True)
class SimulatedSites:
    """Maps a simulation's nodes to sites; small enough to travel to Ray's workers, which read the data themselves.

    Attributes:
        run: for the public seed and the settings of `[simulation]` and `[speed]`.
        names: of the institutions, in the order of the nodes.
        load: private records by institution.
        local: folder in which sites keep their tracebacks.
    """

    run: RunConfig
    names: tuple[str, ...]
    load: Callable[[RunConfig], dict[str, list[Row]]]
    local: Path

    def __call__(self, context: Context) -> Site:
        """The site of a node."""
        name = self.names[int(context.node_config["partition-id"])]
        records = self.load(self.run)[name]
        grouped = "group" in records[0]
        share = self.run.simulation.validation_fraction if self.run.simulation else 0.0
        config = SiteConfig(
            institution=InstitutionSection(name=name),
            dataset=DatasetSection(
                id=f"simulated-{name}",
                path=Path(),
                columns={"group": "group"} if grouped else {},
                unit="group" if grouped else "record",
                declared_units=declared_size(round((1 - share) * len(gather(records)))),
                validation_fraction=share,
            ),
            policy=PolicySection(allow_no_privacy=self.run.privacy.unit == "none"),
            compute=ComputeSection(
                device=self.run.speed.device, tokens_per_micro_batch=self.run.speed.tokens_per_micro_batch
            ),
        )
        secret = hashlib.sha256(f"simulated {self.run.study.seed} {name}".encode()).digest()
        return Site(config, lambda _: records, secret, functools.partial(_report, self.local, name))


def _report(local: Path, name: str, error: BaseException) -> None:
    """Keep a traceback in the run directory's ``local/``: in a simulation the user owns both ends."""
    local.mkdir(parents=True, exist_ok=True)
    path = local / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.log"  # a name comes from data, and may be "../x"
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)) + "\n")
