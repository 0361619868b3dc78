"""The members of a secure sum: the partners that a person at this institution compared, and nobody else."""

from collections.abc import Mapping

from confide.common.protocol.enrolment import partner_fingerprint, same_fingerprint


def partner_problems(keys: Mapping[str, str], own_name: str, own_key: str, partners: Mapping[str, str]) -> list[str]:
    """Return every reason why the institutions of a run are not the partners of this one.

    Args:
        keys: update key by institution, from the locked run.
        own_name: of this institution.
        own_key: its update key, hex.
        partners: fingerprint by institution, `[partners]` of site.toml.
    """
    problems = []
    if keys.get(own_name) != own_key:
        listed = "is not listed" if own_name not in keys else f"is listed with the key {keys[own_name]}"
        problems.append(f"study.keys: {own_name!r} {listed}, must be listed with this institution's key, {own_key}")
    for name, key in keys.items():
        fingerprint = partner_fingerprint(key)
        if name == own_name or same_fingerprint(partners.get(name, ""), fingerprint):
            continue
        known = f"partners.{name} = {partners[name]!r}" if name in partners else "is not in [partners]"
        problems.append(
            f"study.keys: {name!r} {known}, its key has the fingerprint {fingerprint}; compare it by telephone with "
            "that institution"
        )
    return problems
