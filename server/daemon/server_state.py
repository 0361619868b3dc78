"""The state that the worker thread and the admin port share."""

import logging
import threading
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, InputError
from confide.server.fleet.superlink import FlowerState
from confide.server.home.home import Home
from confide.server.home.queue import Queue
from confide.server.home.registry import Member

log = logging.getLogger("confide")


@dataclass
class ServerState:
    """The state that the worker thread and the admin port share.

    Attributes:
        home, queue: both are on disk.
        link: access to Flower's state; None until the server has started.
        stopping: name of the run that an operator wants to stop; its open round ends first.
        going: false once the server ends.
        admitted: members that Flower was last told of, by name and by node; None before the first time.
        admitting: lock held from reading the registry to telling Flower, so that Flower hears the newest state last.
        troubles: current troubles as they were logged, by subject.
    """

    home: Home
    queue: Queue
    link: FlowerState | None = None
    stopping: str | None = None
    going: bool = True
    admitted: tuple[dict[str, Member], dict[int, Member]] | None = None
    admitting: threading.Lock = field(default_factory=threading.Lock)
    troubles: dict[str, str] = field(default_factory=dict)

    def is_over(self, name: str) -> bool:
        """Return whether a run must stop; asked between rounds. This also shuts out institutions revoked meanwhile."""
        self.nodes()
        return self.stopping == name or not self.going

    def nodes(self) -> dict[int, str]:
        """Return the names of approved institutions by node id, after bringing Flower up to date."""
        return {node: member.institution for node, member in self.members().items()}

    def members(self) -> dict[int, Member]:
        """Return the approved institutions by node id, after bringing Flower up to date."""
        if self.link is None:
            return {}
        with self.admitting:
            approved = self._approved()
            if self.admitted is None or approved != self.admitted[0]:  # this runs every second, for months
                nodes = self.link.admit({name: member.node_key.encode() for name, member in approved.items()})
                self.admitted = (approved, {node: approved[name] for node, name in nodes.items()})
            return self.admitted[1]

    def members_of(self, run: RunConfig) -> dict[int, Member]:
        """Return the approved institutions that a run names, or all of them if it names none."""
        named = run.study.institutions
        return {node: one for node, one in self.members().items() if not named or one.institution in named}

    def _approved(self) -> dict[str, Member]:
        """Return the approved institutions, by name.

        They come from the registry. While it cannot be read, as during a restore, its last content holds.
        """
        try:
            approved = self.home.registry.approved()
        except (InputError, OSError) as error:
            if self.admitted is None:
                raise
            self.complain("registry", error)
            return self.admitted[0]
        self.troubles.pop("registry", None)
        return approved

    def complain(self, about: str, error: Exception) -> None:
        """Log an error with its place of origin. The same error is logged again only after a recovery in between."""
        said = type(error).__name__  # another library's text could quote what a client sent
        if isinstance(error, (ConfideError, OSError)):
            said = str(error)
        elif isinstance(error, DBAPIError):
            said = disk_reason(error)
        if self.troubles.get(about) != said:
            self.troubles[about] = said
            log.error("%s; it is tried again", said, exc_info=error)


def disk_reason(error: OSError | DBAPIError) -> str:
    """Return the reason in the words of the system or of SQLite: these texts are fixed and quote nothing."""
    return str(error.strerror) if isinstance(error, OSError) else f"link.db: {error.orig}"
