"""A client or a server that waits has loaded nothing that only training needs: that comes with the first ask or run."""

import subprocess
import sys
from pathlib import Path

from support.installations import write_site

from confide.client.site.installation import open_site
from confide.common.protocol.enrolment import Kit, write_json
from confide.server.home.home import init_home

# The command as it is typed, but that what would go on for months prints a line and ends.
_PROGRAM = """
import socket, sys
from types import SimpleNamespace
from confide.common.flower import prepare
from confide.common.cli.main import main

def tell():
    print("LOADED", [name for name in ("torch", "transformers", "opacus", "peft") if name in sys.modules])

async def waits(shared, public, admin, end):
    public[0].started = admin[0].started = True
    tell()

prepare()
if sys.argv[1] == "client":
    from confide.client.service import process
    process.Link = lambda *rest: SimpleNamespace(run=tell)
else:
    from confide.server.daemon import process
    process._both, process._bind = waits, lambda *address: socket.create_server(("127.0.0.1", 0))
main()
"""


def _said(*arguments: object) -> str:
    """The last line of a command that was started."""
    command = [sys.executable, "-c", _PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_a_client_that_was_never_asked_has_not_imported_torch(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    open_site(path)
    (tmp_path / "state" / "kit.json").write_text(write_json(Kit("127.0.0.1:1", "ca", "st-mary", "0")), encoding="utf-8")
    assert _said("client", "start", "--site", path) == "LOADED []"


def test_a_server_that_carries_out_no_run_has_not_imported_torch(tmp_path: Path) -> None:
    init_home(tmp_path / "srv", ["localhost"], 8443)
    assert _said("server", "start", "--home", tmp_path / "srv") == "LOADED []"
