"""The client's checks in a rehearsal of a secure sum, against a server that shows it another statement or run."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from flwr.app import RecordDict
from support.hostile_sums import HONEST, NAMES, HostileServer
from support.planting import plant, require_caught

from confide.client.answers import rehearsal
from confide.client.privacy import sum_checks
from confide.client.site.installation import open_site
from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig
from confide.common.errors import PolicyError
from confide.common.protocol.secure_sum import SignedShare, Statement
from confide.common.protocol.sum_messages import Masked, ask_for_sum, share_from


class Rehearsals:
    """Both exchanges of rehearsals with four institutions, each a process of its own that lasts."""

    def __init__(self, server: HostileServer) -> None:
        self.server, self.clients = server, {name: ClientProcess() for name in NAMES}

    def shares(self) -> list[SignedShare]:
        """The first exchange, with all."""
        return [self._share(name) for name in NAMES]

    def _share(self, name: str) -> SignedShare:
        site, ask = open_site(self.site_file(name)), self.server.asking[name].ask(1)
        content = rehearsal.answer_rehearsal(ask.content(), site.without_data(), self.clients[name])
        return share_from(RecordDict({"share": content["share"]}))

    def sum(self, name: str, shares: list[SignedShare]) -> Masked:
        """The second exchange, with one: of these shares."""
        site, ask = open_site(self.site_file(name)), self.server.asking[name].ask(1)
        content = ask_for_sum(ask, Statement.of(shares), 1e11).content()
        return Masked.from_content(rehearsal.answer_rehearsed_sum(content, site.without_data(), self.clients[name]))

    def site_file(self, name: str) -> Path:
        return self.server.folder / name / "site.toml"


@pytest.fixture
def server(tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path) -> HostileServer:
    return HostileServer(tmp_path, make_run, base_folder, 3)


@pytest.fixture
def rehearsals(server: HostileServer) -> Rehearsals:
    return Rehearsals(server)


def _signed_by(rehearsals: Rehearsals, share: SignedShare, signer: str, **changes: str) -> SignedShare:
    text = replace(share.envelope(), **changes).text()  # type: ignore[arg-type]
    return SignedShare(text, rehearsals.server.identities[signer].sign(text))


def _statements_are_checked(rehearsals: Rehearsals) -> None:
    first, *others, last = rehearsals.shares()
    assert rehearsals.sum(NAMES[0], [first, *others, last]).envelope.what == "rehearsal"
    wrong = {
        "the sum has 2 members": [first, last],
        "is not signed by the key that was approved": [first, *others, _signed_by(rehearsals, last, NAMES[0])],
        "is of another what": [first, *others, _signed_by(rehearsals, last, NAMES[3], what="share")],
    }
    for told, shares in wrong.items():
        with pytest.raises(PolicyError, match=told):
            rehearsals.sum(NAMES[0], shares)


def test_masks_of_a_rehearsal_are_given_under_a_checked_statement_only(rehearsals: Rehearsals) -> None:
    _statements_are_checked(rehearsals)


def _policy_counts_again(rehearsals: Rehearsals) -> None:
    shares, path = rehearsals.shares(), rehearsals.site_file(NAMES[0])
    text = path.read_text(encoding="utf-8")
    assert text.count('"test"') == 1
    path.write_text(text.replace('"test"', '"other"'), encoding="utf-8")
    try:
        with pytest.raises(PolicyError, match="study"):
            rehearsals.sum(NAMES[0], shares)
    finally:
        path.write_text(text, encoding="utf-8")
    rehearsals.sum(NAMES[0], shares)


def test_a_study_taken_out_of_the_policy_between_the_exchanges_is_refused(rehearsals: Rehearsals) -> None:
    _policy_counts_again(rehearsals)


def _keys_are_fresh(rehearsals: Rehearsals) -> None:
    first, second = rehearsals.shares(), rehearsals.shares()
    assert len({share.envelope().mask_key for share in first + second}) == 2 * len(NAMES)
    for name in NAMES:
        with pytest.raises(PolicyError, match="or with another envelope of it"):
            rehearsals.sum(name, first)
        rehearsals.sum(name, second)


def test_each_rehearsal_has_mask_keys_of_its_own_and_forgets_the_last(rehearsals: Rehearsals) -> None:
    _keys_are_fresh(rehearsals)


Check = Callable[[Rehearsals], None]
PLANTED: dict[str, tuple[str, str, Check]] = {
    "statement unchecked": (
        "    require_statement(statement, held.signed, Agreed(run.study.keys, run.federation.min_clients))\n",
        "",
        _statements_are_checked,
    ),
    "policy unasked": (
        "    agree(run, site, ask.lineage)\n    names =",
        "    names =",
        _policy_counts_again,
    ),
    "a constant secret": ("secret = new_mask_secret()", "secret = bytes(range(32))", _keys_are_fresh),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_careless_client_is_caught(rehearsals: Rehearsals, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    right, wrong, check = PLANTED[name]
    require_caught(monkeypatch, rehearsal, (right, wrong, partial(check, rehearsals)))


def _files(server: HostileServer) -> dict[str, bytes]:
    """The shares that the institutions hold."""
    return {str(path): path.read_bytes() for path in server.folder.rglob("*.share")}


def _are_worthless_to_each_other(server: HostileServer) -> None:
    """Every member has sealed a share and rehearsed, for one study, lineage, round and adapter, in one process."""
    server.collect(1)
    sealed, held = server.envelopes[1], _files(server)
    rehearsed = {name: server.rehearsed(name) for name in NAMES}
    for name in HONEST:
        for shares in (rehearsed, {**rehearsed, name: sealed[name]}):
            assert server.sum(name, 1, Statement.of(shares.values())) is None
            assert "is of another what" in str(server.errors[name][-1])
        for shares in (sealed, {**sealed, name: rehearsed[name]}):
            assert server.rehearsed_sum(name, Statement.of(shares.values())) is None
            assert "is of another what" in str(server.errors[name][-1])
        assert server.rows(name, "release") == []
    assert len(held) == len(NAMES)
    assert _files(server) == held
    assert server.rehearsed_sum(NAMES[0], Statement.of(rehearsed.values())) is not None
    assert server.sum(NAMES[0], 1, Statement.of(sealed.values())) is not None


def test_a_rehearsal_and_its_round_are_worth_nothing_to_each_other(server: HostileServer) -> None:
    _are_worthless_to_each_other(server)


def test_a_client_that_takes_one_kind_for_the_other_is_caught(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, sum_checks, ', "what")', ")")
    with pytest.raises(AssertionError):
        _are_worthless_to_each_other(server)
