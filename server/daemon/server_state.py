"""The state that the worker thread and the admin port share."""

import logging
import threading
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, InputError
from confide.server.fleet.superlink import Link
from confide.server.home.home import Home
from confide.server.home.queue import Queue
from confide.server.home.registry import Member

log = logging.getLogger("confide")


@dataclass
class ServerState:
    """What the worker thread and the admin port share.

    Attributes:
        home, queue: on disk.
        link: to Flower's state; None until the server has started.
        stopping: name of the run that an operator wants to stop; the round that is open ends first.
        going: ends when the server does.
        admitted: who was approved when Flower was last told, by name, and by the node that came of it; None: not yet.
        admitting: held from reading the registry to telling Flower, so that the newest is told last.
        troubles: what is wrong now, by what it is about, as it was logged.
    """

    home: Home
    queue: Queue
    link: Link | None = None
    stopping: str | None = None
    going: bool = True
    admitted: tuple[dict[str, Member], dict[int, Member]] | None = None
    admitting: threading.Lock = field(default_factory=threading.Lock)
    troubles: dict[str, str] = field(default_factory=dict)

    def is_over(self, name: str) -> bool:
        """Asked between rounds: whether to stop. Who was revoked meanwhile is shut out here."""
        self.nodes()
        return self.stopping == name or not self.going

    def nodes(self) -> dict[int, str]:
        """Name by node id of the approved institutions, as Flower knows them from now on."""
        return {node: member.institution for node, member in self.members().items()}

    def members(self) -> dict[int, Member]:
        """The approved institutions by node id, as Flower knows them from now on."""
        if self.link is None:
            return {}
        with self.admitting:
            approved = self._approved()
            if self.admitted is None or approved != self.admitted[0]:  # asked every second, for months
                nodes = self.link.admit({name: member.node_key.encode() for name, member in approved.items()})
                self.admitted = (approved, {node: approved[name] for node, name in nodes.items()})
            return self.admitted[1]

    def members_of(self, run: RunConfig) -> dict[int, Member]:
        """The approved institutions that a run names; all of them where it names none."""
        named = run.study.institutions
        return {node: one for node, one in self.members().items() if not named or one.institution in named}

    def _approved(self) -> dict[str, Member]:
        """By the registry; by what it said last while it cannot be read, as when a backup is copied over it."""
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
        """Log an error with where it came from; the same one no second time before that was well again."""
        said = type(error).__name__  # another library's text could quote what a client sent
        if isinstance(error, (ConfideError, OSError)):
            said = str(error)
        elif isinstance(error, DBAPIError):
            said = disk_reason(error)
        if self.troubles.get(about) != said:
            self.troubles[about] = said
            log.error("%s; it is tried again", said, exc_info=error)


def disk_reason(error: OSError | DBAPIError) -> str:
    """What is wrong, in a text of the system's or of SQLite's: these are fixed, and quote nothing."""
    return str(error.strerror) if isinstance(error, OSError) else f"link.db: {error.orig}"
