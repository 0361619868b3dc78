"""The link at work: over TLS to Flower's own fleet API, past the code that it offers, and through a proxy."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, Message, RecordDict
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from support.deployment import free_port
from support.fleet import Fleet, linked, make_bundle
from support.https import make_keys, proxy
from support.installations import Asking, kinds, write_site

from confide.client.service.process import _Answers
from confide.client.service.running import Status
from confide.client.site.installation import open_site
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model
from confide.common.protocol.answers import declined

KEY = ec.generate_private_key(ec.SECP384R1())
HOSTILE = "hostile_bundle"
NEEDED = "activate-node pull-messages pull-object push-messages push-object"
PATHS = {f"/v1/fleet/{name}" for name in f"{NEEDED} send-node-heartbeat deactivate-node".split()}
MakeRun = Callable[..., RunConfig]
Start = Callable[..., Fleet]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return make_keys(tmp_path / "keys", "127.0.0.1")


@pytest.fixture
def start(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a server; `KEY` is approved."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    started = list[Fleet]()

    def server(bundle: bytes = b"") -> Fleet:
        started.append(Fleet(tmp_path, keys, KEY, bundle))
        return started[-1]

    yield server
    for each in started:
        each.close()


def _offered(fleet: Fleet, ca: bytes, run_id: int) -> bytes:
    """The bundle of a run, as stock Flower's client gets it for the same key."""
    interceptor, node = NodeAuthHttpInterceptor(KEY, KEY.public_key()), Node(node_id=fleet.node)
    address = f"127.0.0.1:{fleet.port}"
    with FleetHttpClient.from_server_address(address, False, ca, [interceptor]) as stock:
        run = stock.GetRun(GetRunRequest(node=node, run_id=run_id)).run
        return bytes(stock.GetFab(GetFabRequest(node=node, run_id=run_id, hash_str=run.fab_hash)).fab.content)


def test_a_hostile_bundle_is_never_asked_for_and_nothing_of_it_is_imported(
    start: Start, keys: Path, make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    """The ask's run names the bundle, and the server would hand it out; the institution trains all the same."""
    marker, ca = tmp_path / "imported", (keys / "ca.pem").read_bytes()
    bundle, path = make_bundle(HOSTILE, marker), write_site(tmp_path / "site")
    fleet, site = start(bundle), open_site(path)
    asking = Asking(lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), lambda: site)
    answers = _Answers(path, site, Status(tmp_path / "site" / "state"))
    with linked(f"127.0.0.1:{fleet.port}", ca, KEY, answers), fleet.asked(asking.ask(1).content(), "train") as reply:
        requested = set(fleet.paths)
        assert _offered(fleet, ca, reply.metadata.run_id) == bundle, "or there was nothing to fetch"
    assert not marker.exists()
    assert [name for name in sys.modules if HOSTILE in name] == []
    assert kinds(reply.content) == ["update"]
    assert requested <= PATHS
    assert requested >= {f"/v1/fleet/{name}" for name in NEEDED.split()}
    assert [one for one in fleet.paths if one not in PATHS] == ["/v1/fleet/get-run", "/v1/fleet/get-fab"], "but ours"


def test_the_hostile_bundle_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports it leaves the file that the test above looks for."""
    (tmp_path / "bundle.zip").write_bytes(make_bundle("hostile_proof", tmp_path / "imported"))
    monkeypatch.syspath_prepend(str(tmp_path / "bundle.zip"))
    importlib.import_module("hostile_proof")
    del sys.modules["hostile_proof"]
    assert (tmp_path / "imported").exists()


def test_a_client_behind_a_proxy_is_connected_and_asked(
    start: Start, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, nobody = start(), free_port()  # nobody listens there: only the proxy leads to the server

    def answer(ask: Message, context: Context) -> Message:
        return Message(declined(), reply_to=ask)

    with proxy(fleet.port) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        link: Any = linked(f"127.0.0.1:{nobody}", (keys / "ca.pem").read_bytes(), KEY, answer)
        with link, fleet.asked(RecordDict(), "train") as reply:
            assert kinds(reply.content) == ["declined"]
    assert set(fleet.paths) <= PATHS
