"""The server's own certificate authority and TLS certificate. Institutions trust only this authority."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from confide.common.durable import write_durably

_PEM, _OPEN = serialization.Encoding.PEM, serialization.NoEncryption()
_YEARS_OF_AUTHORITY, _YEARS_OF_SERVER = 10, 2


def make_certificates(folder: Path, names: list[str]) -> None:
    """Write ca.key, ca.pem, tls.key and tls.pem.

    Args:
        folder: the folder to write them to.
        names: host names and IP addresses at which institutions reach the server.
    """
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Confide authority of {names[0]}"[:64])])
    basic = x509.BasicConstraints(ca=True, path_length=0)
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    certificate = _builder(issuer, issuer, authority, _YEARS_OF_AUTHORITY).add_extension(basic, critical=True)
    # Python 3.13 refuses an authority without an explicit list of what it may sign.
    unused = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    others = dict.fromkeys([*unused, "encipher_only", "decipher_only"], False)
    usage = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **others)
    certificate = certificate.add_extension(usage, critical=True).add_extension(identifier, critical=False)
    signed = certificate.sign(authority, hashes.SHA256())
    _save(folder, "ca", authority, signed)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
    alternative = x509.SubjectAlternativeName([_general_name(name) for name in names])
    basic = x509.BasicConstraints(ca=False, path_length=None)
    known_as = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    certificate = _builder(subject, issuer, key, _YEARS_OF_SERVER).add_extension(basic, critical=True)
    certificate = certificate.add_extension(alternative, critical=False).add_extension(known_as, critical=False)
    _save(folder, "tls", key, certificate.sign(authority, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, years: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    # It begins an hour ago, because clocks differ.
    return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(
        now + datetime.timedelta(days=365 * years)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _save(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, _OPEN)
    write_durably(folder / f"{name}.key", private, 0o600)
    write_durably(folder / f"{name}.pem", certificate.public_bytes(_PEM))
