"""What a server asks, and what the kinds of clients have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Protocol

from confide.client.privacy.account import AnswerKind
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan

if TYPE_CHECKING:
    from crash.planted import Planted


@dataclass(frozen=True)
class Ask:
    """One ask; ``statement`` names the sum of a share, ``receipt`` the last answer that the server has."""

    study: str
    what: AnswerKind
    round: int
    input_sha256: str
    statement: str = ""
    receipt: str = ""


class Client(Protocol):
    """A client that has opened its folder."""

    def answer(self, ask: Ask) -> tuple[object, ...]:
        """``("answer", bytes)`` or ``("declined", name of the error, its text)``."""


@dataclass(frozen=True)
class Kind:
    """A kind of client.

    Attributes:
        places: where it can be killed; ``longest``: seconds within which a kill at any moment comes.
        caps: that the site file gets; ``plans``: by study; ``policy``: further lines of the file.
        script: asks of one server; ``warm``: done once, before any fork; ``prepare``: files of a new folder.
        client: opens a folder in a child; ``head``: which RESERVE row an answer names; ``receipt``: what the
            server sends back of it, or nothing.
        payload: the part of an answer whose hash the ledger has.
        reads_policy_at_every_ask: else at its start.
    """

    places: tuple[str, ...]
    longest: float
    caps: list[Cap]
    plans: dict[str, PrivacyPlan]
    policy: str
    script: Callable[[Random], list[Ask]]
    warm: Callable[[], None]
    prepare: Callable[[Path], None]
    client: Callable[[Callable[[object], None], Path, Callable[[str], None], "Planted"], "Client"]
    head: Callable[[bytes], str]
    receipt: Callable[[bytes], str]
    payload: Callable[[bytes], bytes]
    reads_policy_at_every_ask: bool
