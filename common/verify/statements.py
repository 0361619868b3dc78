"""The statements of a run's secure sums: who was a member of each, by the signatures of the institutions."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from confide.common.verify.fields import Row, faults, show
from confide.common.verify.files import parse, read

_PROTOCOL = "confide-sum-1"
# All fields of an envelope but ``what``, which means another thing in a ledger.
_ENVELOPE = "study lineage round institution run_sha256 base_sha256 input_sha256 mask_key ledger_head"


@dataclass(frozen=True)
class Statement:
    """One round's statement: the hash of its text, and what each member's envelope says, in the file's order."""

    sha256: str
    envelopes: tuple[Row, ...]

    @property
    def names(self) -> list[str]:
        """The members' names."""
        return [envelope["institution"] for envelope in self.envelopes]


@dataclass(frozen=True)
class Agreed:
    """The terms of every sum of a run, as institutions agreed to them.

    Attributes:
        fields: the fields in which all envelopes are the same, with their values.
        keys: update key of every institution, in hex, by name.
        min_members: the fewest in a sum.
    """

    fields: Row
    keys: Row
    min_members: int


def read_statements(folder: Path) -> tuple[dict[int, Statement], list[str]]:
    """Return the statements in a run's ``rounds/statements``, by the number in the file's name, and the problems.

    A file that has not exactly the form of a statement is a problem, and counts as none. Hidden files are left out:
    a crash leaves them, and the server shows a statement only after its file has its name.
    """
    found, problems = dict[int, Statement](), list[str]()
    for path in sorted((folder / "rounds/statements").glob("[!.]*")):
        try:
            number = int(path.stem) if path.stem.isdecimal() else 0
            if number < 1 or path.name != f"{number:04d}.json":
                raise ValueError("its name is not that of a round")
            found[number] = _statement(read(path))
        except (OSError, ValueError, RecursionError) as error:
            problems.append(f"statement {show(path.name)}: {error}")
    return found, problems


def _statement(content: bytes) -> Statement:
    value = _canonical(content.decode("ascii"), "it")
    members = value.get("members") if isinstance(value, dict) else None
    if not isinstance(members, list) or value != {"members": members, "protocol": _PROTOCOL}:
        raise ValueError(f"it has not members and the protocol {_PROTOCOL} alone")
    return Statement(hashlib.sha256(content).hexdigest(), tuple(_envelope(member) for member in members))


def _envelope(member: Any) -> Row:
    """Return a member's envelope, with ``text`` and ``signature`` beside its fields; `ValueError` for another form."""
    if not isinstance(member, list) or len(member) != 2 or not all(isinstance(part, str) for part in member):
        raise ValueError(f"the member {show(member)} is not an envelope and a signature")
    envelope = _canonical(member[0], "an envelope")
    what = envelope.pop("what", None) if isinstance(envelope, dict) else None
    if wrong := faults(envelope, _ENVELOPE):
        raise ValueError(f"an envelope: {wrong[0]}")
    if what != "share":
        raise ValueError(f"an envelope: what = {show(what)} is not 'share'")
    return {**envelope, "text": member[0], "signature": member[1]}


def _canonical(text: str, what: str) -> Any:
    value = parse(text, what)
    if json.dumps(value, sort_keys=True, separators=(",", ":")) != text:
        raise ValueError(f"{what} is not in canonical form")
    return value


def statement_problems(found: dict[int, Statement], agreed: Agreed) -> Iterator[str]:
    """Yield what is wrong with statements, which are given by round."""
    if len(set(agreed.keys.values())) < len(agreed.keys):
        yield "study.keys: two institutions have the same key"
    lineages = [envelope["lineage"] for statement in found.values() for envelope in statement.envelopes]
    for number, statement in found.items():
        same = {**agreed.fields, "round": number, "lineage": lineages[0] if lineages else None}
        for problem in _problems(statement, same, agreed.keys):
            yield f"statement of round {number}: {problem}"
        if (count := len(statement.envelopes)) < agreed.min_members:
            yield f"statement of round {number}: {count} members are fewer than min_clients = {agreed.min_members}"


def _problems(statement: Statement, same: Row, keys: Row) -> Iterator[str]:
    if any(later <= earlier for earlier, later in pairwise(statement.names)):
        yield "its members do not stand in the order of their names, each once"
    if len({envelope["mask_key"] for envelope in statement.envelopes}) < len(statement.envelopes):
        yield "two members have the same mask key"
    for envelope in statement.envelopes:
        name, key = show(envelope["institution"]), keys.get(envelope["institution"])
        if key is None:
            yield f"{name} is not in study.keys"
        elif not _signed_by(key, envelope["text"], envelope["signature"]):
            yield f"the envelope of {name} is not signed by its key in study.keys"
        all_same = {**same, "input_sha256": statement.envelopes[0]["input_sha256"]}
        for field in (field for field, value in all_same.items() if envelope[field] != value):
            yield f"the envelope of {name} is of another {field}"


def claim_problems(row: Row, found: dict[int, Statement]) -> Iterator[str]:
    """Yield where a row of privacy.json says another thing of the members than its plan and the statements show."""
    if "sharing" not in row["plan"]:
        return
    least = min((len(statement.names) for statement in found.values()), default=None)
    for field, shown in (("max_colluding", row["plan"]["sharing"]["max_colluding"]), ("least_members", least)):
        if (said := row.get(field)) != shown or type(said) is not type(shown):
            yield f"{field} = {show(said)}, but plan and statements show {shown}"


def _signed_by(key: str, text: str, signature: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def event_problems(found: dict[int, Statement], events: Iterable[Row]) -> Iterator[str]:
    """Yield where a run's events show a sum of which there is no statement, or one of other members."""
    for event in events:
        kind, number, accepted = event.get("event"), event.get("round"), event.get("accepted", 0)
        if not (kind == "sum_started" or (kind == "round" and accepted != 0)):
            continue
        statement = found.get(number) if type(number) is int else None
        if statement is None:
            yield f"round {show(number)}: its events show a sum, of which there is no statement"
        elif kind == "sum_started" and event.get("statement_sha256") != statement.sha256:
            yield f"round {number}: its events show another statement than the one in rounds/statements"
        elif kind == "round" and accepted != len(statement.names):
            yield f"round {number}: {show(accepted)} shares were added, but {len(statement.names)} members signed"
