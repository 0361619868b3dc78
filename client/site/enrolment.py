"""Enrolment of an institution at a server: keys are made here, a request goes out, a kit comes in."""

import os
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from confide.client.config import SiteConfig
from confide.client.privacy.rollback import Witnesses
from confide.client.site.installation import Site
from confide.common.durable import replace_durably, sync_folder
from confide.common.errors import InputError, LedgerError
from confide.common.protocol.enrolment import JoinRequest, Kit, authority_of, read_kit, same_fingerprint, write_json
from confide.common.shown import shown

_NODE_KEY, _IDENTITY, _KIT = "node.key", "identity.key", "kit.json"
_ASKED = "server.txt"  # the address that `client join ADDRESS` was given
_REMEDY = "put it back from the backup, or replace it: `confide client join ADDRESS --new-keys`"


def node_key(state: Path) -> ec.EllipticCurvePrivateKey:
    """The EC key that signs requests to Flower, made on first use; it never leaves the state folder."""
    path = state / _NODE_KEY
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())  # the curve of Flower's own keys
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        replace_durably(path, private, 0o600)
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    except ValueError:
        raise LedgerError(f"{path}: not a key; {_REMEDY}") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise LedgerError(f"{path}: not an EC key; {_REMEDY}")
    return loaded


def make_request(site: Site) -> JoinRequest:
    """The request of a site, signed by its own update key."""
    public = node_key(site.config.state.dir).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    request = JoinRequest(site.config.institution.name, pem, site.identity.public_hex())
    return replace(request, signature=site.identity.sign(request.text()))


def renew_keys(config: SiteConfig) -> None:
    """Replace the keys, even lost or damaged ones, with which no site can be opened.

    Ledger, outbox and ``secret.key`` stay, so no spend is forgotten and no unit changes its share. The kit is deleted:
    the server knows the new keys only after another approval. A crash in between leaves one old key. The server
    refuses such a pair, and the administrator repeats this. No client may run on the state folder meanwhile.
    """
    state = config.state.dir
    for name in (_KIT, _NODE_KEY):
        (state / name).unlink(missing_ok=True)
    sync_folder(state)
    replace_durably(state / _IDENTITY, os.urandom(32), 0o600)
    Witnesses(config.state.anchor, state / "audit.jsonl", config.dataset.id).note("new keys")


def note_server(state: Path, address: str) -> None:
    """Keep the address of the server that an institution means to join: its kit must come from that one."""
    replace_durably(state / _ASKED, address.strip().encode(), 0o600)


def check_kit(site: Site, kit: Kit) -> str:
    """Check all of a kit that a machine can check. Return its authority's fingerprint, which only people can check.

    Raises:
        InputError: the kit is for another institution or other keys, comes from another server than was asked, or holds
            no authority.
    """
    request = make_request(site)
    if kit.institution != request.institution or not same_fingerprint(kit.fingerprint, request.fingerprint()):
        raise InputError(
            f"the kit is for {shown(kit.institution)!r} with fingerprint {shown(kit.fingerprint)}, this is "
            f"{request.institution!r} with {request.fingerprint()}; ask the server's operator for the right one"
        )
    path = site.config.state.dir / _ASKED
    asked = path.read_text(encoding="utf-8") if path.is_file() else kit.address  # earlier versions kept none
    if asked.lower() not in (kit.address.lower(), kit.address.lower().rpartition(":")[0]):
        raise InputError(
            f"the kit is of server {shown(kit.address)!r}, but this institution asked {asked!r}; ask its operator by "
            "telephone, and only if that address is right: `confide client join` with it, then take the kit again"
        )
    return authority_of(kit.ca, "the kit")[1]


def accept_kit(site: Site, kit: Kit, authority: str) -> None:
    """Accept a server's kit: from here on the client trusts its address and its authority.

    The carrier of a kit could exchange both, for all else in it is public.

    Args:
        site: the one that asked for the kit.
        kit: as received.
        authority: fingerprint of the server's authority, as its operator read it out by telephone.

    Raises:
        InputError: see `check_kit`; or the authority is another one.
    """
    fingerprint = check_kit(site, kit)
    if not same_fingerprint(authority, fingerprint):
        raise InputError(
            f"the kit's authority has the fingerprint {fingerprint}, not {shown(authority)!r}: mistyped, or the kit "
            "was exchanged on its way; do not use it before its operator has read out the same"
        )
    whole = replace(kit, ca=authority_of(kit.ca, "the kit")[0])
    replace_durably(site.config.state.dir / _KIT, write_json(whole).encode(), 0o600)


def has_joined(state: Path) -> bool:
    """Return whether a kit was accepted."""
    return (state / _KIT).is_file()


def kit_of(state: Path) -> Kit:
    """The kit that was accepted; `InputError` if none was."""
    if not has_joined(state):
        raise InputError("this institution has joined no server yet; `confide client join ADDRESS` begins it")
    return read_kit(state / _KIT)
