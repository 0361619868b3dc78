"""The admission of an institution whose fingerprint a person compared by telephone."""

from dataclasses import dataclass

from confide.common.errors import InputError
from confide.common.protocol.enrolment import JoinRequest, Kit, authority_of, same_fingerprint
from confide.server.home.home import Home


@dataclass(frozen=True)
class Admitted:
    """An institution that was admitted.

    Attributes:
        kit: for the institution.
        authority: fingerprint of the server's authority, which the operator reads to the institution.
    """

    kit: Kit
    authority: str


def admit(home: Home, asked: JoinRequest, fingerprint: str, named: str) -> Admitted:
    """Admit an institution.

    Args:
        home: the server's folder.
        asked: the request that the institution made.
        fingerprint: as the institution read it out by telephone.
        named: words for the request in an error.

    Raises:
        InputError: the request has another fingerprint, or the registry refuses it.
    """
    ca, authority = authority_of(home.ca(), str(home.folder / "keys" / "ca.pem"))
    if not same_fingerprint(fingerprint, asked.fingerprint()):
        raise InputError(f"{named}: its fingerprint is {asked.fingerprint()}, not {fingerprint}; do not admit it")
    home.registry.approve(asked)
    return Admitted(Kit(home.address, ca, asked.institution, asked.fingerprint()), authority)
