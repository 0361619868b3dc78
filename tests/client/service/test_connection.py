"""The connection of an idle client: kept, so that it costs next to nothing, and with nobody but the server joined."""

import threading
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from confide.client.service import link
from confide.client.service.heartbeat import HEARTBEAT_EVERY
from confide.server.home.certificates import make_certificates


def _http(tmp_path: Any) -> Any:
    make_certificates(tmp_path, ["localhost"])
    ca = (tmp_path / "ca.pem").read_bytes()
    key = ec.generate_private_key(ec.SECP384R1())
    return link.Link("localhost:1", ca, key, lambda ask, context: ask, threading.Event())._http._client


def test_a_connection_outlives_the_time_between_two_heartbeats_and_two_polls(tmp_path: Any) -> None:
    kept = _http(tmp_path)._transport._pool._keepalive_expiry
    assert kept > max(HEARTBEAT_EVERY, link._POLL_IDLE)
    assert kept < 75, "the server closes it then: a request that crosses the closing would be lost"


def test_a_redirect_is_not_followed(tmp_path: Any) -> None:
    assert _http(tmp_path).follow_redirects is False


def test_the_pinned_authority_is_still_the_only_one_that_is_believed(tmp_path: Any) -> None:
    context = _http(tmp_path)._transport._pool._ssl_context
    assert [dict(part[0] for part in item["subject"])["commonName"] for item in context.get_ca_certs()] != []
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname
