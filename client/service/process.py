"""`confide client start`: the process that takes part, for months. Only a signal ends it."""

import logging
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from confide.client.config import load_site_config
from confide.client.service.link import Link, LinkLost
from confide.client.service.probe import require_usable_proxies
from confide.client.service.reasons import is_refusal, reason_of
from confide.client.service.release_ticks import at_ticks
from confide.client.service.running import Status, only_client
from confide.client.site.enrolment import kit_of, node_key
from confide.client.site.installation import Site, open_site
from confide.common.config.sections import FederationSection
from confide.common.protocol.answers import declined
from confide.common.protocol.versions import VersionError
from confide.common.protocol.wire import answer_to
from confide.common.shown import shown

if TYPE_CHECKING:
    from confide.client.training.shares import ClientProcess

log = logging.getLogger("confide")


def serve(path: Path, client: "ClientProcess | None" = None) -> None:
    """Take part until SIGTERM or SIGINT. torch is imported at the first ask.

    Args:
        path: of site.toml.
        client: coins and clock; only tests pass one.

    Raises:
        InputError: the site has joined no server, its state folder is missing, or a proxy's address is invalid.
        LedgerError: the ledger is not whole.
        ConfideError: another client runs on this state folder.
    """
    require_usable_proxies()
    state, stop = load_site_config(path).state.dir, threading.Event()
    with only_client(state):
        site, kit = open_site(path), kit_of(state)  # only now: `client join --new-keys` may replace keys till here
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        status = Status(state)
        answers = _Answers(path, site, status, client)
        answer = at_ticks(answers, stop, answers.least_tick)
        link = Link(kit.address, kit.ca.encode(), node_key(state), answer, stop)
        link.is_paused, link.tell = (state / "paused").exists, status.hear
        log.info("institution %s, server %s", site.config.institution.name, kit.address)
        link.run()


class _Answers:
    """The ClientApp, made at the first ask; a changed site.toml counts from the next ask on."""

    def __init__(self, path: Path, site: Site, status: Status, client: "ClientProcess | None" = None) -> None:
        self._path, self._site, self._status, self._client = path, site, status, client
        self._app: ClientApp | None = None
        self._paused = site.config.state.dir / "paused"
        self._seen = -1  # none yet: an edit since the site was opened counts at the first ask
        self._reason = self._logged = ""

    def __call__(self, message: Message, context: Context) -> Message:
        """Return the reply to a message. The reason of a refusal is told here: once in the log, and in the status."""
        log.info("%s, round %s", shown(message.metadata.message_type, 40), shown(message.metadata.group_id, 40))
        self._status.asked(message.metadata.message_type, _facts(message))
        self._reason = "none of the kinds of message that this version answers"
        reply = self._answer(message, context)
        reason = self._reason if is_refusal(reply) else ""
        if reason:
            self._status.refused(reason)
        if reason and reason != self._logged:
            log.warning("not done: %s", reason)
        self._logged = reason
        return reply

    def _answer(self, message: Message, context: Context) -> Message:
        """Return the app's reply, or `declined` at once while an administrator has paused the client.

        Raises:
            LinkLost: a sum is asked for meanwhile. `declined` would void it at once; unanswered, it is asked for again
                when the client comes back.
        """
        if self._paused.exists():
            if message.metadata.message_type == "query.sum":
                raise LinkLost("paused, and a sum is asked for; the server asks again")
            self._reason = "an administrator has paused this client"
            return answer_to(message, declined())
        if self._app is None:
            from confide.client.answers.app import make_client_app

            self._app = make_client_app(lambda _: self._current(), self._client)
        try:
            return self._app(message=message, context=context)
        except ValueError:  # Flower finds no function for this kind of message; ours raise nothing
            return answer_to(message, declined())

    def least_tick(self) -> float:
        """Return the seconds of the site's shortest tick, as last read; a run's default if the site sets none."""
        return self._site.config.policy.min_release_seconds or FederationSection().release_seconds

    def _current(self) -> Site:
        """Return the site as its file says now: a lowered limit must not wait for a restart.

        While the file cannot be used, every ask is refused. The site that was read before keeps the reason.
        """
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._seen:
                self._site, self._seen = open_site(self._path), changed
        except Exception as error:
            self._report(error)
            raise
        return self._site.with_report(self._report)

    def _report(self, error: BaseException) -> None:
        """Keep an error among the refusals and in ``local/``, and for the status in words that quote no record."""
        self._reason = shown(reason_of(error))
        if isinstance(error, VersionError):
            self._logged = self._reason
            log.warning("refused: %s", self._reason)
        self._site.report(error)


def _facts(message: Message) -> dict[str, Any]:
    """Return the fields of an ask, an offer or a finished run; empty for anything else."""
    content = message.content if message.has_content() else RecordDict()
    found = content.get("ask", content.get("done"))
    return dict(found) if isinstance(found, ConfigRecord) else {}
