"""A kit on its way: whoever carries it can exchange all of it, so two people compare what it is to be believed for."""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.https import make_keys
from support.installations import write_site

from confide.client.site.enrolment import accept_kit, has_joined, kit_of, make_request, note_server
from confide.client.site.installation import Site, open_site
from confide.common.cli import main
from confide.common.errors import InputError
from confide.common.protocol.enrolment import Kit, authority_of, write_json
from confide.server.home.home import init_home

ADDRESS = "fl.example.org:8443"


@dataclass
class Joining:
    """An institution that asked a server, and the kit that its operator made."""

    path: Path
    site: Site
    kit: Kit

    @property
    def authority(self) -> str:
        return authority_of(self.kit.ca, "kit")[1]

    @property
    def state(self) -> Path:
        return self.site.config.state.dir


@pytest.fixture
def joining(tmp_path: Path) -> Joining:
    path = write_site(tmp_path / "site")
    site = open_site(path)
    note_server(site.config.state.dir, ADDRESS)
    request, ca = make_request(site), (make_keys(tmp_path / "real", "fl.example.org") / "ca.pem").read_text()
    return Joining(path, site, Kit(ADDRESS, ca, request.institution, request.fingerprint()))


@pytest.fixture
def other_ca(tmp_path: Path) -> str:
    """Of somebody who plays the server, under the same name."""
    return (make_keys(tmp_path / "evil", "fl.example.org") / "ca.pem").read_text(encoding="utf-8")


def _call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["confide", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    return int(stopped.value.code or 0)


def test_a_kit_is_taken_with_the_fingerprint_that_its_operator_reads_out(joining: Joining) -> None:
    accept_kit(joining.site, joining.kit, joining.authority)
    assert kit_of(joining.state) == joining.kit


def test_an_exchanged_authority_is_refused(joining: Joining, other_ca: str) -> None:
    with pytest.raises(InputError, match="exchanged on its way"):
        accept_kit(joining.site, replace(joining.kit, ca=other_ca), joining.authority)
    assert not has_joined(joining.state)


def test_a_second_authority_behind_the_one_that_was_compared_is_refused(joining: Joining, other_ca: str) -> None:
    for ca in (joining.kit.ca + other_ca, other_ca + joining.kit.ca):
        with pytest.raises(InputError, match="must hold one certificate"):
            accept_kit(joining.site, replace(joining.kit, ca=ca), joining.authority)


def test_what_stands_around_the_certificate_is_not_kept(joining: Joining) -> None:
    hidden = "-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n-----END TRUSTED CERTIFICATE-----\n"
    accept_kit(joining.site, replace(joining.kit, ca=f"words\n{joining.kit.ca}{hidden}"), joining.authority)
    assert kit_of(joining.state).ca == joining.kit.ca


@pytest.mark.parametrize("ca", ["", "pem", "-----BEGIN CERTIFICATE-----\nother authority\n", "\ud800"])
def test_a_kit_without_an_authority_is_refused(joining: Joining, ca: str) -> None:
    with pytest.raises(InputError, match="must hold one certificate"):
        accept_kit(joining.site, replace(joining.kit, ca=ca), joining.authority)


@pytest.mark.parametrize("address", ["evil.example.net:8443", "fl.example.org:443", "fl.example.org:8443\x1b[2J"])
def test_a_kit_of_another_server_than_was_asked_is_refused(joining: Joining, address: str) -> None:
    with pytest.raises(InputError, match=r"but this institution asked 'fl\.example\.org:8443'") as refused:
        accept_kit(joining.site, replace(joining.kit, address=address), joining.authority)
    assert str(refused.value).isprintable()
    assert not has_joined(joining.state)


@pytest.mark.parametrize("typed", ["FL.example.org:8443", " fl.example.org:8443 ", "fl.example.org"])
def test_an_address_may_be_typed_as_people_type(joining: Joining, typed: str) -> None:
    note_server(joining.state, typed)
    accept_kit(joining.site, joining.kit, joining.authority)


def test_who_asked_with_an_earlier_version_compares_the_authority_alone(joining: Joining, other_ca: str) -> None:
    (joining.state / "server.txt").unlink()
    with pytest.raises(InputError, match="exchanged on its way"):
        accept_kit(joining.site, replace(joining.kit, ca=other_ca), joining.authority)
    accept_kit(joining.site, joining.kit, joining.authority)


def test_a_kit_for_other_keys_is_refused(joining: Joining) -> None:
    for changed in (replace(joining.kit, institution="st-jude"), replace(joining.kit, fingerprint="0" * 32)):
        with pytest.raises(InputError, match="the kit is for"):
            accept_kit(joining.site, changed, joining.authority)


# The commands


def _kit_file(joining: Joining, tmp_path: Path) -> Path:
    path = tmp_path / "kit.json"
    path.write_text(write_json(joining.kit), encoding="utf-8")
    return path


def test_the_command_asks_for_what_the_operator_reads_out(
    joining: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["0000-1111", joining.authority.upper().replace("-", " ")]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda text: typed.pop(0))
    join = "client", "join", "--kit", _kit_file(joining, tmp_path), "--site", joining.path
    assert _call(monkeypatch, *join) == InputError.exit_code
    assert not has_joined(joining.state)
    assert _call(monkeypatch, *join) == 0
    shown = capsys.readouterr().out
    assert f"server {ADDRESS}, its authority has the fingerprint {joining.authority}" in shown
    assert kit_of(joining.state) == joining.kit


def test_where_nobody_can_be_asked_it_takes_an_option(
    joining: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    join = "client", "join", "--kit", _kit_file(joining, tmp_path), "--site", joining.path
    assert _call(monkeypatch, *join) == InputError.exit_code
    assert "needs --authority" in capsys.readouterr().err
    assert _call(monkeypatch, *join, "--authority", "0" * 32) == InputError.exit_code
    assert not has_joined(joining.state)
    assert _call(monkeypatch, *join, "--authority", joining.authority) == 0


def test_the_address_of_join_is_what_a_kit_is_compared_with(
    joining: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = _kit_file(joining, tmp_path)
    assert _call(monkeypatch, "client", "join", "other.example.org:8443", "--site", joining.path) == 0
    join = "client", "join", "--kit", kit, "--authority", joining.authority, "--site", joining.path
    assert _call(monkeypatch, *join) == InputError.exit_code
    assert "asked 'other.example.org:8443'" in capsys.readouterr().err
    assert _call(monkeypatch, "client", "join", ADDRESS, "--site", joining.path) == 0
    assert _call(monkeypatch, *join) == 0


def test_the_operator_s_command_prints_one_fingerprint_and_takes_the_other(
    joining: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes the client's as it is typed, and prints the authority's."""
    home = init_home(tmp_path / "fl", ["fl.example.org"], 8443)
    assert _call(monkeypatch, "client", "join", ADDRESS, "--site", joining.path) == 0
    [fingerprint] = re.findall(r"fingerprint: (\S+)", capsys.readouterr().out)
    request = joining.path.parent / "join-st-mary.json"
    typed = fingerprint.upper().replace("-", ": ")
    assert _call(monkeypatch, "server", "approve", request, "--fingerprint", typed, "--home", home.folder) == 0
    [authority] = re.findall(r"authority: (\S+)", capsys.readouterr().out)
    kit = joining.path.parent / "kit-st-mary.json"
    join = "client", "join", "--kit", kit, "--authority", authority, "--site", joining.path
    assert _call(monkeypatch, *join) == 0
    assert kit_of(joining.state).ca == home.ca()


def test_the_operator_is_told_where_the_authority_is_not_one(
    joining: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = init_home(tmp_path / "fl", ["fl.example.org"], 8443)
    (home.folder / "keys" / "ca.pem").write_text(joining.kit.ca * 2, encoding="utf-8")
    assert _call(monkeypatch, "client", "join", ADDRESS, "--site", joining.path) == 0
    [fingerprint] = re.findall(r"fingerprint: (\S+)", capsys.readouterr().out)
    request = joining.path.parent / "join-st-mary.json"
    approve = "server", "approve", request, "--fingerprint", fingerprint, "--home", home.folder
    assert _call(monkeypatch, *approve) == InputError.exit_code
    assert "ca.pem: must hold one certificate" in capsys.readouterr().err
    assert not home.registry.approved()
