"""One look at the server: its own certificate passes, every other is named, and nothing but one GET leaves."""

import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.deployment import free_port
from support.https import UNUSABLE_PROXIES, Health, health_server, make_keys, make_kit, proxy

from confide.client.service.probe import clock_ahead
from confide.common.errors import ConfideError, InputError
from confide.server.home import certificates


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return make_keys(tmp_path / "own", "127.0.0.1")


@pytest.mark.parametrize("ahead", [0.0, 10.0, -10.0, 400.0])
def test_the_clocks_are_compared_to_a_second_by_one_request(keys: Path, ahead: float) -> None:
    with health_server(keys, Health(ahead=ahead)) as server:
        measured = clock_ahead(make_kit(keys, server.port))
    assert measured is not None
    assert abs(measured + ahead) < 1.5
    assert server.requests == ["GET /health"]


def test_a_server_without_a_date_tells_no_time(keys: Path) -> None:
    with health_server(keys, Health(ahead=None)) as server:
        assert clock_ahead(make_kit(keys, server.port)) is None


def test_a_proxy_that_intercepts_is_named_and_gets_no_more_than_the_one_request(tmp_path: Path, keys: Path) -> None:
    inspecting = _renamed(tmp_path / "inspecting", "Acme TLS inspection")
    with health_server(inspecting) as server, pytest.raises(ConfideError) as caught:
        clock_ahead(make_kit(keys, server.port))
    assert "'CN=Acme TLS inspection'" in str(caught.value)
    assert "'CN=Confide authority of 127.0.0.1'" in str(caught.value)
    assert "intercepts TLS" in str(caught.value)
    assert f"exempt 127.0.0.1:{server.port} from inspection" in str(caught.value)
    assert server.requests == ["GET /health"]


def test_a_server_set_up_anew_is_not_taken_for_a_proxy(tmp_path: Path, keys: Path) -> None:
    anew = make_keys(tmp_path / "anew", "127.0.0.1")
    with health_server(anew) as server, pytest.raises(ConfideError, match="another authority of the same name"):
        clock_ahead(make_kit(keys, server.port))


def test_a_certificate_for_another_name_is_named(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "own", "fl.example.org")
    with health_server(keys) as server, pytest.raises(ConfideError, match=r"IP address mismatch.*a kit with a name"):
        clock_ahead(make_kit(keys, server.port))


def test_a_certificate_that_is_over_is_told_from_a_wrong_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3 * 365)
    past = SimpleNamespace(now=lambda zone: then)
    with monkeypatch.context() as patch:
        clock = SimpleNamespace(datetime=past, UTC=datetime.UTC, timedelta=datetime.timedelta)
        patch.setattr(certificates, "datetime", clock)
        keys = make_keys(tmp_path / "own", "127.0.0.1")
    with health_server(keys) as server, pytest.raises(ConfideError, match=r"expired; set this machine's clock"):
        clock_ahead(make_kit(keys, server.port))


def test_certificates_that_others_trust_are_nothing_to_us(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kit pins one; the variable may name a file of the administrator's that this user cannot read."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    with health_server(keys) as server:
        assert clock_ahead(make_kit(keys, server.port)) is not None


@pytest.mark.parametrize(("name", "value"), UNUSABLE_PROXIES)
def test_a_proxy_that_cannot_be_used_is_named(
    keys: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(
        InputError, match=r"HTTPS_PROXY, ALL_PROXY or NO_PROXY cannot be used: .*; must be like http://"
    ):
        clock_ahead(make_kit(keys, free_port()))


def test_a_proxy_s_password_is_in_no_message(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx quotes what stands behind the colon as the port, if a sign of the password is not encoded."""
    monkeypatch.setenv("HTTPS_PROXY", "http://anne:geheim#1@proxy.example.org:3128")
    with pytest.raises(InputError, match="percent-encoded") as found:
        clock_ahead(make_kit(keys, free_port()))
    assert "geheim" not in str(found.value)


def test_nobody_there_is_said_in_one_line(keys: Path) -> None:
    with pytest.raises(ConfideError, match=r"127.0.0.1:\d+: no connection \(ConnectError.*is the server running"):
        clock_ahead(make_kit(keys, free_port()))


def test_another_answer_than_200_is_no_server(keys: Path) -> None:
    with health_server(keys, Health(status=503)) as server, pytest.raises(ConfideError, match="HTTP 503 to /health"):
        clock_ahead(make_kit(keys, server.port))


def test_a_kit_without_a_certificate_is_named(keys: Path) -> None:
    kit = make_kit(keys, 1)
    object.__setattr__(kit, "ca", "none")
    with pytest.raises(ConfideError, match=r"kit.json: holds no certificate"):
        clock_ahead(kit)


# Through a proxy, as the client goes


def test_a_proxy_that_only_passes_on_changes_nothing(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with health_server(keys, Health(ahead=-10.0)) as server, proxy(server.port) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        kit = make_kit(keys, free_port())  # nobody is there: only the proxy leads to the server
        measured = clock_ahead(kit)
    assert measured is not None
    assert abs(measured - 10) < 1.5, "the proxy's own answer is not the server's"
    assert server.requests == ["GET /health"]


def test_a_proxy_that_presents_its_own_certificate_is_named(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspecting = _renamed(tmp_path / "inspecting", "Acme TLS inspection")
    with health_server(inspecting) as server, proxy(server.port) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(ConfideError, match=r"issued by 'CN=Acme TLS inspection'.*intercepts TLS"):
            clock_ahead(make_kit(keys, free_port()))


def test_a_proxy_that_refuses_is_named(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(0, allowed=False) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(ConfideError, match=r"ProxyError: 403 Forbidden.*HTTPS_PROXY"):
            clock_ahead(make_kit(keys, free_port()))


def _renamed(folder: Path, authority: str) -> Path:
    """Keys for this machine, by an authority of another name."""
    with pytest.MonkeyPatch.context() as patch:
        name = certificates.x509.Name(
            [certificates.x509.NameAttribute(certificates.x509.NameOID.COMMON_NAME, authority)]
        )
        builder = certificates._builder
        patch.setattr(certificates, "_builder", lambda subject, issuer, key, years: builder(subject, name, key, years))
        return make_keys(folder, "127.0.0.1")
