"""A server's folder, its certificates and its queue."""

import calendar
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.server.home.home import init_home, open_home
from confide.server.home.queue import Queue


def test_a_new_folder_is_private_and_opens_again(tmp_path: Path) -> None:
    home = init_home(tmp_path / "srv", ["fl.example.org", "10.0.0.1"], 9443)
    assert home.address == "fl.example.org:9443"
    assert open_home(tmp_path / "srv").token == home.token
    for name in ("admin.token", "keys/ca.key", "keys/tls.key"):
        assert (home.folder / name).stat().st_mode & 0o077 == 0, name
    with pytest.raises(InputError, match="new or empty"):
        init_home(tmp_path / "srv", ["x"], 1)
    with pytest.raises(InputError, match="server init"):
        open_home(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["", "fl.exämple.org", "fl.example.org:8443", "https://fl.example.org", "[2001:db8::5]", "a b", "fe80::1%eth0"],
)
def test_a_name_that_nobody_can_reach_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=f"--host: names: {re.escape(repr(name))} must be a host name or an IP address"
    ):
        init_home(tmp_path / "srv", ["fl.example.org", name], 9443)
    assert not (tmp_path / "srv").exists()


def test_runs_are_named_and_taken_by_universal_time(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When summer time ends, local time goes back an hour."""
    names = []
    for zone in ("XYZ-14", "XYZ12"):  # 26 hours apart
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        names.append(Queue(tmp_path / "queue").add(make_run()).name[:15])
    monkeypatch.undo()
    time.tzset()
    first, second = (calendar.timegm(time.strptime(name, "%Y%m%d-%H%M%S")) for name in names)
    assert 0 <= second - first < 600


def test_an_ipv6_address_is_told_as_a_url_has_it(tmp_path: Path) -> None:
    home = init_home(tmp_path / "srv", ["2001:db8::5"], 9443)
    assert home.address == "[2001:db8::5]:9443"
    server = x509.load_pem_x509_certificate((home.folder / "keys" / "tls.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["2001:db8::5"]


def test_the_certificate_is_for_the_names_and_from_the_authority(tmp_path: Path) -> None:
    home = init_home(tmp_path / "srv", ["fl.example.org", "10.0.0.1"], 9443)
    ssl.create_default_context(cadata=home.ca())
    server = x509.load_pem_x509_certificate((home.folder / "keys" / "tls.pem").read_bytes())
    authority = x509.load_pem_x509_certificate(home.ca().encode())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]


def test_runs_wait_their_turn_and_an_interrupted_one_goes_first(
    tmp_path: Path, make_run: Callable[..., RunConfig]
) -> None:
    queue = Queue(tmp_path / "queue")
    assert queue.next() is None
    first, second = queue.add(make_run()), queue.add(make_run())
    assert queue.run_of(first).sha256() == make_run().sha256()
    assert first.lineage != second.lineage
    queue.write(replace(second, status="running"))
    assert (queue.next() or first).name == second.name, "after a crash of the server"
    for name in (first, second):
        queue.write(replace(name, status="completed"))
    assert queue.next() is None
    with pytest.raises(InputError, match="no run 'x'"):
        queue.get("x")
