"""A finished adapter that a server sends: kept of a run that the ledger reserved for, after a look at every file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from support.cards import make_card
from support.installations import LINEAGE, Asking, kinds, write_site
from support.kinds import of_kind
from support.sites import random_state
from support.speed import CPU

from confide.client.answers import finished as finished_module
from confide.client.answers.finished import check_files
from confide.client.commands.models import list_adapters
from confide.client.site.installation import Site, open_site
from confide.common.config.run import RunConfig, lock
from confide.common.errors import PolicyError
from confide.common.export.load import load_adapter
from confide.common.export.write import export_adapter
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import forget_models, warm_model
from confide.common.protocol.asks import Finished
from confide.common.protocol.gate import FINISHED_NORM_BOUND, RECEIVED_NORM_BOUND

MakeRun = Callable[..., RunConfig]
Files = dict[str, bytes]
WEIGHTS, HEAD = "adapter_model.safetensors", "head.safetensors"
OTHER = "cd" * 16


def _exported(folder: Path, run: RunConfig) -> Files:
    """What an honest server sends."""
    model = warm_model(run, CPU)
    export_adapter(folder, run, model, random_state(model), make_card(run))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class Ending:
    """An institution that was asked for a round of a run, and the server that ends the run."""

    def __init__(self, folder: Path, run: RunConfig) -> None:
        self.path, self.run = write_site(folder), run
        self.site: Site = open_site(self.path)
        self.asking = Asking(run, lambda: self.site)
        assert kinds(self.asking.offer()) == ["accepted"]
        assert kinds(self.asking.update()) == ["update"]
        self.finished = Finished("test", LINEAGE, run.sha256(), "", _exported(folder / "finished", run))

    def send(self, finished: Finished) -> list[str]:
        return kinds(self.asking.send(finished.content(), "query.done"))

    def refusal(self) -> str:
        """The last."""
        lines = (self.path.parent / "state" / "refusals.jsonl").read_text(encoding="utf-8").splitlines()
        return str(json.loads(lines[-1])["reason"])

    @property
    def models(self) -> Path:
        return self.path.parent / "models"

    @property
    def folder(self) -> Path:
        return self.models / "test" / LINEAGE[:12]


def _locked(make_run: MakeRun, base_folder: Path, **sections: dict[str, Any]) -> RunConfig:
    return lock(make_run(local={"nominal_units": 20}, **sections), hash_model(base_folder))


@pytest.fixture
def ending(tmp_path: Path, make_run: MakeRun, base_folder: Path) -> Ending:
    return Ending(tmp_path, _locked(make_run, base_folder))


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"adapter": {"rank": 2, "train": "AB", "layers": "top:1"}},
        {"task": {"pooling": "native"}},
        {"federation": {"transfer": "int8"}},
    ],
)
def test_an_honest_one_is_kept_byte_for_byte_and_again(
    tmp_path: Path, make_run: MakeRun, base_folder: Path, sections: dict[str, Any]
) -> None:
    ending = Ending(tmp_path, _locked(make_run, base_folder, **sections))
    for _ in range(2):
        assert ending.send(ending.finished) == []
        kept = {file.name: file.read_bytes() for file in ending.folder.iterdir() if file.name != "sha256.json"}
        assert kept == ending.finished.files
        [adapter] = list_adapters(ending.path)
        assert adapter["state"] == "whole"
    assert load_adapter(ending.folder)[0] == ending.run.model_copy(
        update={"speed": load_adapter(ending.folder)[0].speed}
    )


def test_a_client_that_was_started_anew_keeps_it_too(ending: Ending) -> None:
    """No model is warm; none is loaded for it."""
    forget_models()
    reopened = open_site(ending.path)
    ending.asking.restart(lambda: reopened)
    assert ending.send(ending.finished) == []
    assert ending.folder.is_dir()


# Of what run it is


@pytest.mark.parametrize(
    "change",
    [
        {"lineage": OTHER},
        {"run_sha256": "0" * 64},
        {"study": "small"},
        {"study": "../../escaped"},
        {"study": "x" * 100_000},
    ],
)
def test_one_of_a_run_that_the_ledger_never_reserved_for_is_declined(ending: Ending, change: dict[str, Any]) -> None:
    assert ending.send(replace(ending.finished, **change)) == ["declined"]
    assert not ending.models.exists()
    assert "reserved nothing for such a run" in ending.refusal()
    assert len(ending.refusal()) < 500


def test_who_accepted_a_run_and_was_never_asked_keeps_nothing(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    run, path = _locked(make_run, base_folder), write_site(tmp_path)
    asking = Asking(run, lambda: open_site(path))
    assert kinds(asking.offer()) == ["accepted"]
    finished = Finished("test", LINEAGE, run.sha256(), "", _exported(tmp_path / "finished", run))
    assert kinds(asking.send(finished.content(), "query.done")) == ["declined"]
    assert not (tmp_path / "models").exists()


# Every file


def _tensors(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Files], Files]:
    return lambda files: {**files, name: save(change(load(files[name])))}


def _first(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def changed(tensors: dict[str, Any]) -> dict[str, Any]:
        name = sorted(tensors)[0]
        return {**tensors, name: change(tensors[name])}

    return changed


def _with(name: str, content: bytes) -> Callable[[Files], Files]:
    return lambda files: {**files, name: content}


def _run_of_another(files: Files) -> Files:
    return {**files, "run.json": files["run.json"].replace(b'"seed":7', b'"seed":8')}


HOSTILE: dict[str, tuple[Callable[[Files], Files], str]] = {
    "no files": (lambda files: {}, "run.json is not the run"),
    "no head": (lambda files: {name: data for name, data in files.items() if name != HEAD}, "its files are"),
    "no card": (lambda files: {name: data for name, data in files.items() if name != "README.md"}, "its files are"),
    "another run": (_run_of_another, "run.json is not the run"),
    "a run that is not JSON": (_with("run.json", b"not json"), "run.json is not the run"),
    "words of the server": (
        lambda files: {**files, WEIGHTS: save(load(files[WEIGHTS]), {"format": "pt", "models": "/somewhere"})},
        f"{WEIGHTS}: holds other fields than the format's",
    ),
    "no safetensors": (_with(WEIGHTS, b"junk"), f"{WEIGHTS}: format"),
    "a pickle": (_with(HEAD, b"\x80\x04K\x01."), f"{HEAD}: format"),
    "a megabyte more": (lambda files: {**files, WEIGHTS: files[WEIGHTS] + bytes(2**20)}, f"{WEIGHTS}: size"),
    "nan": (_tensors(WEIGHTS, _first(lambda value: np.full_like(value, np.nan))), "norm"),
    "infinite in the head": (_tensors(HEAD, _first(lambda value: np.full_like(value, np.inf))), "norm"),
    "huge": (_tensors(WEIGHTS, _first(lambda value: value + np.float32(FINISHED_NORM_BOUND))), "norm"),
    "doubles": (_tensors(HEAD, _first(lambda value: value.astype("f8"))), f"{HEAD}: "),
    "whole numbers": (_tensors(WEIGHTS, _first(lambda value: value.astype("i4"))), "must be float32"),
    "another shape": (_tensors(WEIGHTS, _first(lambda value: value.T.copy())), "must be float32 of shape"),
    "one tensor more": (_tensors(HEAD, lambda tensors: {**tensors, "extra": np.zeros(1, "f4")}), f"{HEAD}: keys"),
    "one tensor less": (_tensors(WEIGHTS, lambda tensors: dict(sorted(tensors.items())[1:])), f"{WEIGHTS}: keys"),
    "a card that controls a terminal": (_with("README.md", b"# fine\n\x1b[2J"), "README.md: holds characters"),
    "a card that is no text": (_with("README.md", b"\xff\xfe"), "README.md: not UTF-8"),
    "a card without an end": (_with("README.md", b"x" * (2**20 + 1)), "README.md: 1,048,577 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_finished_adapter_with_a_wrong_file_is_declined_and_none_of_it_kept(ending: Ending, name: str) -> None:
    change, why = HOSTILE[name]
    assert ending.send(replace(ending.finished, files=change(ending.finished.files))) == ["declined"]
    assert why in ending.refusal()
    assert not ending.models.exists()
    assert ending.send(ending.finished) == [], "the honest one still comes"


def test_a_head_on_small_states_is_large_and_kept(ending: Ending) -> None:
    """Its bound is not that of an adapter that is trained on."""
    grown = _tensors(HEAD, _first(lambda value: value + np.float32(10 * RECEIVED_NORM_BOUND)))
    assert ending.send(replace(ending.finished, files=grown(ending.finished.files))) == []


def test_a_head_that_compares_tokens_is_kept_with_its_centre(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    run = lock(of_kind(make_run(local={"nominal_units": 20}), "question-answering"), hash_model(base_folder))
    files = _exported(tmp_path / "finished", run)
    finished = Finished("test", LINEAGE, run.sha256(), "", files)
    assert check_files(finished, tmp_path / "models") == files
    moved = _tensors(HEAD, lambda tensors: {**tensors, "spread": tensors["centre"]})(files)
    with pytest.raises(PolicyError, match=HEAD):
        check_files(replace(finished, files=moved), tmp_path / "models")


def test_what_peft_loads_is_written_here_whatever_the_server_says(ending: Ending) -> None:
    """PEFT looks for a base model, and for code, where this file points it."""
    evil = {"base_model_name_or_path": "evil/model", "auto_mapping": {"parent_library": "os"}, "peft_type": "LORA"}
    files = {**ending.finished.files, "adapter_config.json": json.dumps(evil).encode()}
    assert ending.send(replace(ending.finished, files=files)) == []
    kept = (ending.folder / "adapter_config.json").read_bytes()
    assert kept == ending.finished.files["adapter_config.json"]


def test_a_hostile_one_after_an_honest_one_changes_nothing(ending: Ending) -> None:
    assert ending.send(ending.finished) == []
    before = {file.name: file.read_bytes() for file in ending.folder.iterdir()}
    for change, _ in HOSTILE.values():
        assert ending.send(replace(ending.finished, files=change(ending.finished.files))) == ["declined"]
    assert {file.name: file.read_bytes() for file in ending.folder.iterdir()} == before


def test_an_adapter_without_its_base_model_is_declined_and_the_remedy_is_named(
    tmp_path: Path, make_run: MakeRun, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the base model there is nothing to compare it with."""
    ending = Ending(tmp_path, _locked(make_run, base_folder))
    hidden = base_folder.rename(base_folder.with_name("hidden"))
    try:
        assert ending.send(ending.finished) == ["declined"]
    finally:
        hidden.rename(base_folder)
    assert "`server resume RUN` at the server gives it out again" in ending.refusal()
    assert ending.send(ending.finished) == []


# How many


def test_as_many_as_are_kept_of_a_study_stay_and_no_more_come(ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each needs a reserved round of its own; without privacy these have no end."""
    monkeypatch.setattr(finished_module, "_MAX_OF_STUDY", 2)
    lineages = [f"{number:032x}"[::-1] for number in range(3)]
    for lineage in lineages:
        assert kinds(ending.asking.update(lineage=lineage)) == ["update"]
    sent = [ending.send(replace(ending.finished, lineage=lineage)) for lineage in lineages]
    assert sent == [[], [], ["declined"]]
    assert "holds 2 finished adapters, the most that are kept; delete some" in ending.refusal()
    assert ending.send(replace(ending.finished, lineage=lineages[0])) == [], "it replaces itself"


def test_their_bytes_are_bounded_all_together(ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(map(len, ending.finished.files.values()))
    monkeypatch.setattr(finished_module, "_MAX_BYTES", size + 1000)
    assert kinds(ending.asking.update(lineage=OTHER)) == ["update"]
    assert ending.send(ending.finished) == []
    assert ending.send(ending.finished) == [], "it replaces itself"
    assert ending.send(replace(ending.finished, lineage=OTHER)) == ["declined"]
    assert "finished adapters would take" in ending.refusal()


def test_no_adapter_goes_into_the_folder_of_a_base_model(ending: Ending) -> None:
    """Its hash would be another, and no run would find it any more."""
    base = ending.models / "test"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}", encoding="utf-8")
    assert ending.send(ending.finished) == ["declined"]
    assert [path.name for path in base.iterdir()] == ["config.json"]
