"""The ledgers' rows in the folder of an unfinished simulation: whole, in order, and none lost by a full disk."""

import subprocess
import sys
from pathlib import Path

import pytest

from confide.common.errors import InputError
from confide.simulations.sites.unfinished import Unfinished

_FILL = """
import resource, signal, sys
from pathlib import Path
from confide.client.privacy.row_kinds import hash_row
from confide.simulations.sites.unfinished import Unfinished

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
kept, previous = Unfinished.begin(Path(sys.argv[1]), {}, real_sites=False), "0" * 64
room = {2: 300, 3: 10_000}  # the second row fits by half; later there is room again
for number in (1, 2, 3):
    row = {"number": number, "previous": previous, "kind": "dataset", "dataset": "north", "fill": "x" * 100}
    previous = hash_row(row)
    if number in room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room[number], 10_000))
    try:
        kept.note(row, previous)
    except OSError:
        print(f"no room for row {number}")
"""


def test_rows_for_which_the_disk_had_no_room_are_written_with_the_next(tmp_path: Path) -> None:
    """A process may live on after its disk was full, and be interrupted later."""
    done = subprocess.run([sys.executable, "-c", _FILL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "no room for row 2\n", done.stderr
    rows = Unfinished.open(tmp_path).open_database().connection.execute("SELECT * FROM rows ORDER BY 2").fetchall()
    assert [(dataset, number) for dataset, number, *_ in rows] == [("north", 1), ("north", 2), ("north", 3)]


def test_a_row_that_follows_a_missing_one_is_refused(tmp_path: Path) -> None:
    kept = Unfinished.begin(tmp_path, {}, real_sites=False)
    kept.note({"number": 2, "previous": "0" * 64, "kind": "reserve"}, "")
    with pytest.raises(InputError, match=r"row 2 of a ledger follows one that is missing; start anew"):
        kept.open_database()
