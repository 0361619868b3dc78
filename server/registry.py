"""Who may take part: a file of approved institutions and their keys. Flower's own database is rebuilt from it."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from confide.common.durable import replace_durably
from confide.common.errors import ConfideError, InputError
from confide.common.join import JoinRequest


@dataclass(frozen=True)
class Member:
    """An institution that was approved, or was once."""

    institution: str
    node_key: str
    update_key: str
    approved: str
    revoked: str | None = None


class Registry:
    """The file ``registry.json``; every call reads it anew, so that an operator's command takes effect at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> list[Member]:
        """All who were ever approved; `InputError` for a file that is away, or is not a registry."""
        try:
            return [Member(**entry) for entry in json.loads(self._path.read_bytes())]
        except FileNotFoundError:
            raise InputError(f"{self._path} is gone; put it back from the backup") from None
        except (ValueError, TypeError):
            raise InputError(f"{self._path}: not a registry; put it back from the backup") from None

    def approved(self) -> dict[str, Member]:
        """Those who may take part, by name."""
        return {member.institution: member for member in self.members() if not member.revoked}

    def approve(self, request: JoinRequest) -> None:
        """Admit an institution; who is approved with these very keys stays so.

        Raises:
            InputError: the name is taken, or one of the keys was ever used before.
        """
        members, approved = self.members(), self.approved().get(request.institution)
        if approved and (approved.node_key, approved.update_key) == (request.node_key, request.update_key):
            return
        if approved:
            raise InputError(f"institution {request.institution!r} is approved already; revoke it first, or rename it")
        if {request.node_key, request.update_key} & {key for one in members for key in (one.node_key, one.update_key)}:
            raise InputError(
                f"institution {request.institution!r}: its keys were used before; it must make new ones "
                "(client join --new-keys)"
            )
        member = Member(request.institution, request.node_key, request.update_key, _now())
        self._write([*members, member])

    def revoke(self, institution: str) -> None:
        """Shut an institution out, from its next message on; `InputError` if it was not approved."""
        if institution not in self.approved():
            known = ", ".join(sorted(self.approved())) or "none"
            raise InputError(f"institution {institution!r} is not approved; approved are: {known}")
        self._write(
            [
                Member(**{**asdict(member), "revoked": _now()})
                if member.institution == institution and not member.revoked
                else member
                for member in self.members()
            ]
        )

    def _write(self, members: list[Member]) -> None:
        try:
            replace_durably(self._path, json.dumps([asdict(member) for member in members], indent=1).encode(), 0o600)
        except OSError as error:
            raise ConfideError(f"{self._path}: {error.strerror}; nothing has changed: mend it and try again") from None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
