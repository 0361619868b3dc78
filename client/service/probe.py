"""One look at the server: a TLS handshake over the pinned authority and one GET of /health. Nothing else is sent."""

import contextlib
import ssl
import time
from email.utils import mktime_tz, parsedate_tz
from typing import Any

import httpx
from cryptography import x509

from confide.client.service.intake import Intake
from confide.common.errors import ConfideError, InputError
from confide.common.protocol.enrolment import Kit
from confide.common.shown import shown

_PATIENCE = 15.0  # seconds
_NOT_NOW = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, _CERT_HAS_EXPIRED
_NOT_HERE = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH


def require_usable_proxies() -> None:
    """Raise `InputError` if httpx cannot use a proxy that is set: it looks for proxies whenever it connects."""
    try:
        httpx.Client(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)).close()  # SSL_CERT_FILE is not read
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        # InvalidURL quotes a part of the address: of a password with a sign that was not encoded, the password.
        why = "no address" if isinstance(error, httpx.InvalidURL) else " ".join(str(error).split())
        raise InputError(
            f"HTTPS_PROXY, ALL_PROXY or NO_PROXY cannot be used: {why}; must be like http://proxy.example.org:3128, "
            "with signs of a password percent-encoded, and hosts between commas"
        ) from None


def clock_ahead(kit: Kit) -> float | None:
    """Return the seconds by which this clock is ahead of the server's, to a second; None if the server tells no time.

    The Date header is cut to whole seconds, and the server makes it anew only once a second: the true time is up to 2 s
    later, 1 s on average. The probe connects as the client does, through HTTPS_PROXY if that is set.

    Raises:
        ConfideError: no server answers, or another one than the kit's; names it and the remedy.
    """
    require_usable_proxies()
    times: list[float] = []

    def note(event: str, _: Any) -> None:
        if event.endswith(("send_request_headers.started", "receive_response_headers.complete")):
            times.append(time.time())

    try:
        answer = _get_health(kit, _pinned(kit), note)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ConfideError(f"{kit.address}: {_reason(kit, error)}") from None
    if answer.status_code != 200:
        raise ConfideError(
            f"{kit.address}: answered HTTP {answer.status_code} to /health, must be 200; ask the server's operator"
        )
    date = parsedate_tz(answer.headers.get("date", ""))
    asked, answered = times[-2:]  # earlier times are of a proxy's answer
    return None if date is None else (asked + answered) / 2 - (mktime_tz(date) + 1)


def _pinned(kit: Kit) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=kit.ca)
    except (ssl.SSLError, ValueError):
        raise InputError("kit.json: holds no certificate; `confide client join --kit` takes the right one") from None
    return context


def _get_health(kit: Kit, context: ssl.SSLContext, trace: Any) -> httpx.Response:
    with Intake().client(context) as web:
        return web.get(f"https://{kit.address}/health", timeout=_PATIENCE, extensions={"trace": trace})


def _reason(kit: Kit, error: Exception) -> str:
    """Return the reason of a missing answer, and the remedy."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return (
            f"no connection ({type(error).__name__}: {shown(error)}); is the server running, and do "
            "the firewall and the proxy of HTTPS_PROXY let it through?"
        )
    if cause.verify_code in _NOT_NOW:
        return f"{cause.verify_message}; set this machine's clock, or ask the operator for a new certificate"
    if cause.verify_code in _NOT_HERE:
        return f"{cause.verify_message}; ask the operator for a kit with a name that the certificate holds"
    own, issuer = x509.load_pem_x509_certificate(kit.ca.encode()).subject, _issuer(kit)
    if own == issuer:
        return (
            "the certificate comes from another authority of the same name: the server was set up anew, or somebody "
            "plays it; telephone its operator, and join again with a new kit"
        )
    name = repr(issuer.rfc4514_string()) if issuer else "somebody who does not say"
    return (
        f"the certificate was issued by {name}, not by {own.rfc4514_string()!r}, which the kit pins: this looks like "
        f"a proxy that intercepts TLS; ask your IT to exempt {kit.address} from inspection"
    )


def _issuer(kit: Kit) -> x509.Name | None:
    """Return the issuer of the certificate that is presented at the address, without trust in it."""
    context, presented = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), list[bytes]()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # to name it, not to trust it

    def note(event: str, info: Any) -> None:
        if event.endswith("start_tls.complete"):
            presented.append(info["return_value"].get_extra_info("ssl_object").getpeercert(True))  # noqa: FBT003 - as DER

    with contextlib.suppress(httpx.HTTPError):
        _get_health(kit, context, note)
    try:
        return x509.load_der_x509_certificate(presented[-1]).issuer
    except (IndexError, TypeError, ValueError):
        return None
