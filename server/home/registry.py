"""The file of approved institutions and their keys. The server rebuilds Flower's own database from it."""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from confide.common.config.run import RunConfig, checked
from confide.common.config.sections import SECURE_SUM
from confide.common.durable import replace_durably
from confide.common.errors import ConfideError, InputError
from confide.common.protocol.enrolment import JoinRequest


@dataclass(frozen=True)
class Member:
    """An institution that is approved, or once was."""

    institution: str
    node_key: str
    update_key: str
    approved: str
    revoked: str | None = None


class Registry:
    """The file ``registry.json``. Every call reads it anew, so that no restart is needed after an operator's command.

    The server reads it between rounds, each second while no run is going on, and whenever a status is asked for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> list[Member]:
        """Return all members ever approved; `InputError` if the file is missing or is not a registry."""
        try:
            return [Member(**entry) for entry in json.loads(self._path.read_bytes())]
        except FileNotFoundError:
            raise InputError(f"{self._path} is gone; put it back from the backup") from None
        except (ValueError, TypeError):
            raise InputError(f"{self._path}: not a registry; put it back from the backup") from None

    def approved(self) -> dict[str, Member]:
        """Return the members that may take part, by name."""
        return _approved(self.members())

    def approve(self, request: JoinRequest) -> None:
        """Admit an institution. One that is approved with the same keys stays approved.

        Raises:
            InputError: the name is taken, or one of the keys was ever used before.
        """
        with self._alone():
            self._approve(request, self.members())

    def _approve(self, request: JoinRequest, members: list[Member]) -> None:
        approved = _approved(members).get(request.institution)
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
        """Shut an institution out, at the latest when the open round has ended; `InputError` if it was not approved."""
        with self._alone():
            members = self.members()
            approved = _approved(members)
            if institution not in approved:
                known = ", ".join(sorted(approved)) or "none"
                raise InputError(f"institution {institution!r} is not approved; approved are: {known}")
            revoked = replace(approved[institution], revoked=_now())
            self._write([revoked if member == approved[institution] else member for member in members])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock from reading to writing, so that an approval cannot undo a revocation made meanwhile."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _write(self, members: list[Member]) -> None:
        try:
            replace_durably(self._path, json.dumps([asdict(member) for member in members], indent=1).encode(), 0o600)
        except OSError as error:
            raise ConfideError(f"{self._path}: {error.strerror}; nothing has changed: mend it and try again") from None


def with_registered_keys(run: RunConfig, approved: Mapping[str, Member]) -> RunConfig:
    """Return a run of a secure sum with the key of each of its institutions; any other run as it is.

    A run that names no institutions gets all that are approved. Each institution compares these keys by telephone with
    the others before it takes part, so the server's word for them is not enough.

    Raises:
        InputError: an institution of the run is not approved here, or too few are.
    """
    if run.federation.aggregation != SECURE_SUM:
        return run
    names = run.study.institutions or tuple(sorted(approved))
    if absent := sorted(set(names) - set(approved)):
        raise InputError(f"study.institutions: {', '.join(absent)} not approved at this server; approve them first")
    keys = {name: approved[name].update_key for name in names}
    return checked(run.model_copy(update={"study": run.study.model_copy(update={"institutions": names, "keys": keys})}))


def _approved(members: list[Member]) -> dict[str, Member]:
    return {member.institution: member for member in members if not member.revoked}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
