"""A round on disk."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from confide.common import failpoints
from confide.common.errors import ConfideError
from confide.common.training.optimizer import GlobalState, start
from confide.server.rounds import checkpoint
from confide.server.rounds.checkpoint import save_round

LINEAGE = "ab" * 16


def _state(number: int) -> GlobalState:
    adapter = {"b": np.full((2, 3), number, np.float32), "a": np.ones(4, np.float32)}
    return replace(start(adapter), round=number)


def test_a_round_holds_the_training_state_and_the_hashes_of_its_files(tmp_path: Path) -> None:
    accepted = [{"institution": "st-mary", "payload_sha256": "0" * 64}]
    folder = save_round(tmp_path / "rounds", 7, _state(7), accepted, "ab" * 16)
    assert folder == tmp_path / "rounds" / "0007"
    content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    assert (content["round"], content["lineage"], content["accepted"]) == (7, "ab" * 16, accepted)
    assert content["files"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("adapter.safetensors", "training.safetensors")
    }
    np.testing.assert_array_equal(load_file(folder / "adapter.safetensors")["b"], np.full((2, 3), 7))
    assert load_file(folder / "training.safetensors").keys() == {
        f"{kind}/{name}" for kind in ("average", "first", "second") for name in "ab"
    }


@pytest.mark.parametrize("first", [1, 9, 98, 9_998, 99_998])
def test_the_last_two_rounds_are_kept(tmp_path: Path, first: int) -> None:
    for number in range(first, first + 4):
        save_round(tmp_path, number, _state(number), [], "")
        assert (tmp_path / f"{number:04d}" / "state.json").is_file()
        assert len(list(tmp_path.iterdir())) <= 2
    assert {int(path.name) for path in tmp_path.iterdir()} == {first + 2, first + 3}


def test_a_round_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_round(tmp_path, 1, _state(1), [], "")
    write = checkpoint.write_durably

    def fail(path: Path, content: bytes) -> None:
        if path.name == "state.json":
            raise OSError("No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_durably", fail)
    with pytest.raises(OSError, match="No space"):
        save_round(tmp_path, 2, _state(2), [], "")
    assert not (tmp_path / "0002").exists()
    assert (tmp_path / "0001" / "state.json").is_file()
    monkeypatch.setattr(checkpoint, "write_durably", write)
    save_round(tmp_path, 2, _state(2), [], "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001", "0002"], "what was left over is gone"


def test_a_round_may_be_written_again(tmp_path: Path) -> None:
    save_round(tmp_path, 3, _state(3), [], "first")
    folder = save_round(tmp_path, 3, _state(3), [], "second")
    assert json.loads((folder / "state.json").read_text(encoding="utf-8"))["lineage"] == "second"


def _saved(rounds: Path, numbers: range = range(1, 4)) -> None:
    for number in numbers:
        checkpoint.save_round(
            rounds, number, _state(number), [{"institution": "a", "payload_sha256": str(number)}], LINEAGE
        )


def test_the_last_whole_round_comes_back_as_it_was(tmp_path: Path) -> None:
    _saved(tmp_path)
    saved, damaged = checkpoint.load_last(tmp_path, LINEAGE)
    assert saved is not None
    assert (saved.number, saved.accepted, damaged) == (3, [{"institution": "a", "payload_sha256": "3"}], {})
    for name in ("adapter", "average", "first", "second"):
        for key, value in getattr(_state(3), name).items():
            np.testing.assert_array_equal(getattr(saved.state, name)[key], value)
    assert saved.state.round == 3


@pytest.mark.parametrize("file", ["adapter.safetensors", "training.safetensors"])
@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_of_a_damaged_round_only_what_was_accepted_is_known(tmp_path: Path, file: str, damage: bytes | None) -> None:
    _saved(tmp_path)
    path = tmp_path / "0003" / file
    path.unlink() if damage is None else path.write_bytes(damage)
    saved, damaged = checkpoint.load_last(tmp_path, LINEAGE)
    assert saved is not None
    assert saved.number == 2
    assert damaged == {3: [{"institution": "a", "payload_sha256": "3"}]}


class _Killed(BaseException):
    """kill -9."""


@pytest.mark.parametrize("place", [*failpoints.OF_A_CHECKPOINT, "in rmtree"])
def test_a_damaged_round_that_is_saved_anew_is_known_at_any_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """What was accepted in it, or the new one whole; and no folder of which a kill took a part is ever read."""
    _saved(tmp_path)
    (tmp_path / "0003" / "adapter.safetensors").write_bytes(b"damaged")

    def action(name: str) -> None:
        if name == place:
            raise _Killed

    def rmtree(path: Path, **settings: object) -> None:
        if path.exists():
            (path / "state.json").unlink()
            raise _Killed

    with monkeypatch.context() as context:
        context.setattr(failpoints, "action", action)
        if place == "in rmtree":
            context.setattr(checkpoint.shutil, "rmtree", rmtree)
        with pytest.raises(_Killed):
            _saved(tmp_path, range(3, 4))
    saved, damaged = checkpoint.load_last(tmp_path, LINEAGE)
    assert saved is not None
    assert saved.number == 3 or damaged == {3: [{"institution": "a", "payload_sha256": "3"}]}
    _saved(tmp_path, range(3, 5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0003", "0004"], "what was left over is gone"


def test_without_its_state_nothing_is_guessed(tmp_path: Path) -> None:
    _saved(tmp_path)
    (tmp_path / "0003" / "state.json").write_text("{")
    with pytest.raises(ConfideError, match="spend its steps twice"):
        checkpoint.load_last(tmp_path, LINEAGE)


@pytest.mark.parametrize("named", [{}, {"protocol": 2}])
def test_rounds_of_an_earlier_protocol_are_refused(tmp_path: Path, named: dict[str, int]) -> None:
    """A head trained on states as they are would go on as one on standardised states."""
    _saved(tmp_path)
    path = tmp_path / "0003" / "state.json"
    facts = json.loads(path.read_text())
    del facts["protocol"]
    path.write_text(json.dumps(facts | named))
    with pytest.raises(ConfideError, match="resume the run with the version that began it"):
        checkpoint.load_last(tmp_path, LINEAGE)


def test_another_run_s_rounds_are_not_taken(tmp_path: Path) -> None:
    _saved(tmp_path)
    with pytest.raises(ConfideError, match="another run"):
        checkpoint.load_last(tmp_path, "0" * 32)


def test_nothing_saved_is_a_start(tmp_path: Path) -> None:
    assert checkpoint.load_last(tmp_path, LINEAGE) == (None, {})
