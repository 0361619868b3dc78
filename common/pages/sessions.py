"""One-time links and the sessions that they open. Whoever has neither sees nothing."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_LINK_SECONDS = 900.0  # in which a link must be used
_MOST = 8  # links, and sessions: the oldest ends


def seconds() -> float:
    """Return seconds since some moment, with those in which the machine slept: time.monotonic omits them on Linux."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass
class Session:
    """One browser that has used a link.

    Attributes:
        place: the first part of every path of this session. A browser sends a cookie to all ports of a host, so another
            user of this machine could collect it on another port. The path keeps it from there: nobody else knows it.
        cookie: the value that the browser shows.
        form: the value that stands in every form, so that no other page can send one.
        seen: time of the last request that a person made, by the clock of the sessions.
        said: what the last form did, until a page has shown it.
    """

    seen: float
    place: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    form: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    said: str = ""


class Sessions:
    """The links and sessions of one process. They are in memory only, and end with it.

    Args:
        idle_seconds: a session ends so long after its last request.
        clock: tells the time.

    >>> sessions = Sessions(60.0)
    >>> token = sessions.new_link()
    >>> first, second = sessions.open(token), sessions.open(token)
    >>> first is not None, second is None
    (True, True)
    """

    def __init__(self, idle_seconds: float, clock: Callable[[], float] = seconds) -> None:
        self.idle_seconds, self._clock = idle_seconds, clock
        self._links = dict[bytes, float]()
        self._open, self._was_open = list[Session](), False

    def new_link(self) -> str:
        """Return a new token, which opens one session, once. Only its hash is kept."""
        token = secrets.token_urlsafe(32)
        self._links[_hash(token)] = self._clock() + _LINK_SECONDS
        while len(self._links) > _MOST:
            del self._links[next(iter(self._links))]
        return token

    def open(self, token: str) -> Session | None:
        """Return a new session for an unused link, which is void from then on; None for any other text."""
        shown, now = _hash(token), self._clock()
        found = [known for known in self._links if hmac.compare_digest(known, shown)]
        ends = [self._links.pop(known) for known in found]
        if not ends or now > ends[0]:
            return None
        session = Session(now)
        self._open, self._was_open = [*self._open[1 - _MOST :], session], True
        return session

    def find(self, place: str, cookie: str) -> Session | None:
        """Return the session of a place whose cookie this is; None if there is none, or if it has ended."""
        self._open = [session for session in self._open if not self.has_ended(session)]
        for session in self._open:
            if _same(session.place, place) & _same(session.cookie, cookie):
                return session
        return None

    def touch(self, session: Session) -> None:
        """Note that a person has used a session."""
        session.seen = self._clock()

    def end(self, session: Session) -> None:
        """End a session."""
        session.seen = float("-inf")

    def has_ended(self, session: Session) -> bool:
        """Return whether a session was ended, or left alone too long."""
        return self._clock() - session.seen > self.idle_seconds

    def is_left_alone(self, since: float) -> bool:
        """Return whether the last session has ended, or none was opened for the idle time since a time of the clock."""
        if any(not self.has_ended(session) for session in self._open):
            return False
        return self._was_open or self._clock() - since > self.idle_seconds


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(_hash(one), _hash(other))
