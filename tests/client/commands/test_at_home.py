"""An institution compares a shared adapter with its own on held-out records, and personalises it. Nothing leaves."""

import hashlib
import json
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from support.kept import NAME, KeptSite, keep
from support.kinds import SETTINGS

from confide.client.commands.at_home import Home, evaluate, make_personalised
from confide.client.commands.models import Kept
from confide.client.service.running import only_client
from confide.client.site.installation import open_site
from confide.common.cli import main
from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, InputError, PolicyError
from confide.common.export.load import load_adapter
from confide.common.export.merge import merge_adapter
from confide.common.model.evaluation import answer
from confide.common.model.warm_model import forget_models

MakeRun = Callable[..., RunConfig]


def _quiet(line: str) -> None:
    assert "\n" not in line


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    sampling = {"nominal_units": 20, "sampling_probability": 0.5}
    return make_run(local=sampling, federation={"num_rounds": 2})


@pytest.fixture
def site(tmp_path: Path, run: RunConfig) -> KeptSite:
    return keep(tmp_path, run, "text-classification")


# These in every run, the others in `make families`.
_USUAL = ("text-classification", "causal-lm")


@pytest.mark.parametrize(
    "kind",
    [kind if kind in _USUAL else pytest.param(kind, marks=pytest.mark.families) for kind in SETTINGS],
)
def test_every_kind_is_personalised_and_compared_and_no_ledger_changes(
    tmp_path: Path, run: RunConfig, kind: str
) -> None:
    kept = keep(tmp_path, run, kind)
    before, lines = kept.ledger(), list[str]()
    folder = make_personalised(kept.path, "test", lines.append)
    assert folder == kept.personalised
    found = evaluate(kept.path, NAME, None, lines.append)
    assert kept.ledger() == before
    assert list(found.as_json["ways"]) == ["base", "alone", "federated", "personalised"]
    metric = kept.run.task.headline
    for way in found.as_json["ways"].values():
        assert way["interval"]["low"] <= way["metrics"][metric] <= way["interval"]["high"] or metric == "pearson"
    assert found.text.count("\n") > len(found.as_json["ways"]["base"]["metrics"])
    page = found.page.read_text(encoding="utf-8")
    assert "Do not share this page" in page
    assert not re.search(r"https?:|src=|href=|url\(|@import", page), "nothing outside the file"
    assert all(name in page for name in found.as_json["ways"]["base"]["metrics"])
    assert any(re.search(r"round 2 of 2, about 1 s left", line) for line in lines)
    _, model = load_adapter(folder)
    assert len(answer(model, [kept.run.task.made_up(3, 0, 5)])) == 1


def test_only_its_owner_reads_what_is_personalised_whoever_made_the_folder(site: KeptSite) -> None:
    local = site.path.parent / "local"
    local.mkdir(exist_ok=True)
    local.chmod(0o755)
    folder = make_personalised(site.path, "test", _quiet)
    assert folder.is_relative_to(local / "personalised")
    assert stat.S_IMODE((local / "personalised").stat().st_mode) == 0o700


def test_what_is_personalised_is_marked_in_every_file_and_not_exported(site: KeptSite, tmp_path: Path) -> None:
    folder = make_personalised(site.path, "test", _quiet)
    for name in ("adapter_model.safetensors", "head.safetensors"):
        with safe_open(folder / name, framework="numpy") as file:
            assert file.metadata()["confide"] == "personalised: not private, never leaves"
    assert "NOT PRIVATE. NEVER LEAVES." in (folder / "README.md").read_text(encoding="utf-8")
    assert (site.path.parent / "local").stat().st_mode & 0o777 == 0o700
    with pytest.raises(InputError, match="is not private and never leaves, so it is not exported"):
        merge_adapter(folder, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merge_adapter(site.folder, tmp_path / "merged")


def test_it_begins_with_the_shared_adapter_and_trains_on_the_training_share(
    site: KeptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a step in between it answers as the shared one does; with them it has other weights."""
    learnt = load_adapter(make_personalised(site.path, "test", _quiet))[1]
    monkeypatch.setattr("confide.client.home.personal.train_at_home", lambda run, model, units, begin, *rest: begin)
    same = load_adapter(make_personalised(site.path, "test", _quiet))[1]
    shared = load_adapter(site.folder)[1]
    pairs = zip(same.module.parameters(), shared.module.parameters(), strict=True)
    assert all(abs(one - other).max() < 1e-4 for one, other in pairs)
    pairs = zip(learnt.module.parameters(), shared.module.parameters(), strict=True)
    assert any(abs(one - other).max() > 1e-3 for one, other in pairs)


def _edit(site: KeptSite, before: str, after: str) -> None:
    text = site.path.read_text(encoding="utf-8")
    assert before in text
    site.path.write_text(text.replace(before, after), encoding="utf-8")


def _counts(site: KeptSite) -> tuple[int, set[str]]:
    found = evaluate(site.path, "test", None, _quiet)
    return found.as_json["records"], {found.as_json["held out"].partition("; ")[2]}


@pytest.mark.waits
def test_a_share_that_was_raised_brings_no_trained_record_into_the_test(site: KeptSite) -> None:
    few, words = _counts(site)
    assert 0 < few < 24
    assert words == {"no training here has read them"}
    _edit(site, "validation_fraction = 0.3", "validation_fraction = 0.9")
    assert _counts(site)[0] == few
    _edit(site, "validation_fraction = 0.9", "validation_fraction = 0.15")
    assert 0 < _counts(site)[0] < few


@pytest.mark.waits
def test_a_personalised_adapter_is_not_tested_on_its_own_records_either(site: KeptSite) -> None:
    few, _ = _counts(site)
    _edit(site, "validation_fraction = 0.3", "validation_fraction = 0.15")
    make_personalised(site.path, "test", _quiet)
    _edit(site, "validation_fraction = 0.15", "validation_fraction = 0.3")
    assert 0 < _counts(site)[0] < few


def test_a_run_of_an_older_client_is_compared_with_a_warning(site: KeptSite) -> None:
    for note in (site.path.parent / "state" / "splits").iterdir():
        note.unlink()
    [words] = _counts(site)[1]
    assert "before the client noted how it divides records" in words


def test_a_run_that_went_on_from_another_is_compared_with_a_warning(site: KeptSite, run: RunConfig) -> None:
    """Its held-out records may have been trained on through that adapter, and base and alone lack it."""
    begun = run.model_copy(update={"adapter": run.adapter.model_copy(update={"start_sha256": "0" * 64})})
    kept = Kept("test", "0" * 12, site.folder, begun)
    home = Home(kept, open_site(site.path), 0.3, noted=True, local=site.path.parent)
    assert home.caution.startswith("this run went on from another adapter")
    assert replace(home, kept=kept._replace(run=run)).caution == "no training here has read them"


def _take_the_run_of_another(site: KeptSite) -> None:
    run = site.folder / "run.json"
    run.write_bytes(run.read_bytes().replace(b'"seed":7', b'"seed":8'))
    hashes = json.loads((site.folder / "sha256.json").read_bytes())
    hashes["run.json"] = hashlib.sha256(run.read_bytes()).hexdigest()
    (site.folder / "sha256.json").write_text(json.dumps(hashes), encoding="utf-8")


def _hold_nothing_out(site: KeptSite) -> None:
    _edit(site, "validation_fraction = 0.3", "validation_fraction = 0.0")


def _hide_the_base(site: KeptSite) -> None:
    forget_models()
    base = Path(site.run.model.base)
    base.rename(base.with_name("hidden"))


WRONG: dict[str, tuple[Callable[[KeptSite], object], str, str]] = {
    "no such model": (lambda site: None, "other", "'other' is no finished adapter that came here; here: test/"),
    "another institution's run": (_take_the_run_of_another, "test", "ledger has reserved nothing for this run"),
    "a damaged file": (lambda site: (site.folder / "README.md").write_text("x"), "test", "changed: README.md; ask"),
    "nothing held out": (_hold_nothing_out, "test", "no record was held out of test/"),
    "other columns": (lambda site: _edit(site, 'text = "text"', 'text = "label"'), "test", "put the old value back"),
    "no records": (lambda site: (site.path.parent / "notes.jsonl").write_text(""), "test", "holds no record"),
    "no base": (_hide_the_base, "test", "model.base"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_told_in_one_line(
    site: KeptSite, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, model, words = WRONG[name]
    change(site)
    monkeypatch.setattr(sys, "argv", ["confide", "client", "evaluate", model, "--site", str(site.path)])
    try:
        with pytest.raises(SystemExit) as stopped:
            main.main()
    finally:
        base = Path(site.run.model.base)
        if base.with_name("hidden").exists():
            base.with_name("hidden").rename(base)
    assert stopped.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("loading")]
    assert words in line
    assert not list(site.path.parent.glob("local/*.html"))


def test_a_client_that_runs_must_be_paused_or_stopped(site: KeptSite) -> None:
    state = site.path.parent / "state"
    with only_client(state):
        for command in (lambda: evaluate(site.path, "test", None, _quiet), lambda: personalise(site)):
            with pytest.raises(ConfideError, match="`confide client pause` first"):
                command()
        (state / "paused").touch()
        assert personalise(site) == site.personalised


def test_nothing_is_trained_at_home_on_a_retired_dataset_either(site: KeptSite) -> None:
    open_site(site.path).ledger.retire()
    for command in (lambda: evaluate(site.path, "test", None, _quiet), lambda: personalise(site)):
        with pytest.raises(PolicyError, match="is retired: nothing is trained on these people any more"):
            command()
    assert not list(site.path.parent.glob("local/*"))


def personalise(site: KeptSite) -> Path:
    return make_personalised(site.path, "test", _quiet)


@pytest.mark.waits
def test_who_stops_it_leaves_the_personalised_one_of_before(site: KeptSite, monkeypatch: pytest.MonkeyPatch) -> None:
    personalise(site)
    before = {file.name: file.read_bytes() for file in site.personalised.iterdir()}

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("confide.common.export.write.portable_config", stop)
    with pytest.raises(KeyboardInterrupt):
        personalise(site)
    assert {file.name: file.read_bytes() for file in site.personalised.iterdir()} == before
