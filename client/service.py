"""`confide client start`: the process that takes part, for months. It ends on a signal and on nothing else."""

import logging
import signal
import threading
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from confide.client.enrolment import kit_of, node_key
from confide.client.link import Link
from confide.client.site import Site, open_site
from confide.common.messages import declined

log = logging.getLogger("confide")


def serve(path: Path) -> None:
    """Take part until SIGTERM or SIGINT. torch is imported at the first ask.

    Raises:
        InputError: the site has joined no server.
        LedgerError: the ledger is not whole.
    """
    site, stop = open_site(path), threading.Event()
    kit, paused = kit_of(site), site.config.state.dir / "paused"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    link = Link(kit.address, kit.ca.encode(), node_key(site.config.state.dir), _Answers(path, site), stop)
    link.is_paused = paused.exists
    log.info("institution %s, server %s", site.config.institution.name, kit.address)
    link.run()


class _Answers:
    """The ClientApp, made at the first ask; a changed site.toml counts from the next ask on."""

    def __init__(self, path: Path, site: Site) -> None:
        self._path, self._site = path, site
        self._app: ClientApp | None = None
        self._seen = path.stat().st_mtime_ns

    def __call__(self, message: Message, context: Context) -> Message:
        """The reply to a message."""
        if self._app is None:
            from confide.client.app import make_client_app

            self._app = make_client_app(lambda _: self._current())
        log.info("%s, round %s", message.metadata.message_type, message.metadata.group_id)
        try:
            return self._app(message=message, context=context)
        except ValueError:  # of Flower's, which finds no function for such a kind of message; ours raise nothing
            return Message(declined(), reply_to=message)

    def _current(self) -> Site:
        """The site as its file says now: a lowered limit must not wait for a restart."""
        changed = self._path.stat().st_mtime_ns
        if changed != self._seen:
            self._site, self._seen = open_site(self._path), changed
        return self._site
