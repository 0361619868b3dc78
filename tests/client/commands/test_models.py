"""Finished adapters that came to an institution: kept, checked, and used without a network."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cards import make_card
from support.installations import LINEAGE, Asking, kinds, write_site
from support.sites import random_state
from support.speed import CPU

from confide.client.commands.models import list_adapters
from confide.client.site.installation import open_site
from confide.common.cli import main
from confide.common.config.run import RunConfig, lock
from confide.common.errors import InputError
from confide.common.export.load import load_adapter
from confide.common.export.write import export_adapter
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import warm_model
from confide.common.protocol.asks import Finished

MakeRun = Callable[..., RunConfig]

# Runs `confide` where every attempt to reach another machine, or to ask for its address, ends the process.
_OFFLINE = """
import os, sys
def forbid(event, _):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("NETWORK", event, file=sys.stderr, flush=True)
        os._exit(9)
sys.addaudithook(forbid)
from confide.common.cli.main import main
main()
"""


@pytest.fixture
def site(tmp_path: Path, make_run: MakeRun, base_folder: Path) -> Path:
    """A site that took part in a run and was given its adapter, through Flower's own messages."""
    run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    path = write_site(tmp_path)
    opened = open_site(path)
    asking = Asking(run, lambda: opened)
    assert [kinds(asking.offer()), kinds(asking.update())] == [["accepted"], ["update"]]
    model = warm_model(run, CPU)
    export_adapter(tmp_path / "finished", run, model, random_state(model), make_card(run))
    files = {file.name: file.read_bytes() for file in (tmp_path / "finished").iterdir()}
    assert kinds(asking.send(Finished("test", LINEAGE, run.sha256(), "", files).content(), "query.done")) == []
    return path


def _folder(site: Path) -> Path:
    return site.parent / "models" / "test" / LINEAGE[:12]


def test_what_came_is_whole_and_predicts_without_a_network(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["confide", "client", "models", "list", "--site", str(site)])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert not stopped.value.code
    [line] = capsys.readouterr().out.splitlines()
    head, _, command = line.partition(": whole: confide ")
    assert head == f"test {LINEAGE[:12]}"
    words = command.removesuffix("TEXT").split()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, *words, "the film was good"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prediction"] in ("negative", "positive")


def test_an_adapter_finds_the_base_model_that_its_client_trained_with(
    site: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run says "organisation/name"; a client looks for the name among its base models, and so does `predict`."""
    shutil.copytree(base_folder, site.parent / "models" / "tiny")
    run_json = _folder(site) / "run.json"
    content = json.loads(run_json.read_text(encoding="utf-8"))
    content["model"]["base"] = "some-lab/tiny"
    run_json.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.chdir("/")
    run, model = load_adapter(_folder(site))
    assert (run.model.base, model.task) == ("some-lab/tiny", run.task)
    monkeypatch.chdir(_folder(site))
    assert load_adapter(Path("..") / _folder(site).name)[0] == run
    (site.parent / "models" / "tiny" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="'some-lab/tiny' is no folder, and the hub does not give it"):
        load_adapter(_folder(site))
    content["model"]["base"] = str(shutil.copytree(base_folder, site.parent / "elsewhere" / "tiny"))
    run_json.write_text(json.dumps(content), encoding="utf-8")
    assert load_adapter(_folder(site))[0].model.base == content["model"]["base"], "another of that name hides it"


def test_nothing_is_there_before_the_first(tmp_path: Path) -> None:
    assert list_adapters(write_site(tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "state", "files"),
    [
        (lambda folder: (folder / "run.json").write_text("{}"), "changed", ["run.json"]),
        (lambda folder: (folder / "README.md").unlink(), "incomplete", ["README.md"]),
        (lambda folder: (folder / "sha256.json").unlink(), "incomplete", ["sha256.json"]),
        (lambda folder: (folder / "sha256.json").write_text("[1]"), "changed", ["sha256.json"]),
    ],
)
def test_what_is_not_whole_is_named(site: Path, change: Callable[[Path], object], state: str, files: list[str]) -> None:
    [adapter] = list_adapters(site)
    assert (adapter["state"], adapter["files"]) == ("whole", [])
    change(_folder(site))
    [adapter] = list_adapters(site)
    assert (adapter["study"], adapter["run"]) == ("test", LINEAGE[:12])
    assert (adapter["state"], adapter["files"]) == (state, files)


def test_a_change_weighs_more_than_a_loss(site: Path) -> None:
    (_folder(site) / "README.md").unlink()
    (_folder(site) / "run.json").write_text("{}", encoding="utf-8")
    [adapter] = list_adapters(site)
    assert (adapter["state"], adapter["files"]) == ("changed", ["run.json", "README.md"])


def test_a_base_model_in_the_same_folder_is_no_adapter(site: Path) -> None:
    (site.parent / "models" / "minilm" / "1_Pooling").mkdir(parents=True)
    assert len(list_adapters(site)) == 1
