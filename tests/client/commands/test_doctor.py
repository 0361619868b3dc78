"""`confide client doctor`, as an administrator calls it: one line for each check, and an exit code that is true."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.deployment import free_port
from support.https import Health, health_server, make_keys, make_kit
from support.installations import Asking, kinds, write_records, write_site
from support.sites import make_records

from confide.client.answers.agreement import agree
from confide.client.answers.proposed_runs import keep_offer
from confide.client.commands import doctor
from confide.client.site.installation import open_site
from confide.client.steward.approval import approve_run
from confide.client.steward.studies import list_studies
from confide.common.cli import machine, main
from confide.common.config.run import RunConfig, lock
from confide.common.errors import ConfideError, PolicyError
from confide.common.model import base_models
from confide.common.model.base_models import hash_model
from confide.common.protocol.enrolment import write_json

MakeRun = Callable[..., RunConfig]
CANARY = "Jane Doe, 3 May 1961"
_SUBJECTS = ["versions", "server", "ledger", "disk", "memory", "data", "people", "partners", "base models", "device"]
_SUBJECTS += ["room on the device"]


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(base_models.importlib.metadata, "distributions", lambda: iter(()))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_site(tmp_path)


@pytest.fixture
def shelved(tmp_path: Path, base_folder: Path) -> str:
    """The hash of a base model that lies in the site's models folder."""
    shutil.copytree(base_folder, tmp_path / "models" / "tiny")
    return hash_model(base_folder)


def _call(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["confide", "client", "doctor", "--site", str(site)])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    output, errors = capsys.readouterr()
    assert "Traceback" not in errors
    return int(stopped.value.code or 0), output or errors


def _find(site: Path, subject: str) -> doctor.Finding:
    [finding] = [finding for finding in doctor.examine(site) if finding.subject == subject]
    return finding


def _join(site: Path, keys: Path, port: int) -> None:
    state = site.parent / "state"
    state.mkdir(exist_ok=True)
    (state / "kit.json").write_text(write_json(make_kit(keys, port)), encoding="utf-8")


# As a whole


def test_before_joining_all_else_is_looked_at_and_warnings_are_no_failure(
    site: Path, shelved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = _call(site, monkeypatch, capsys)
    *lines, last = output.splitlines()
    assert [line[9:].partition(":")[0] for line in lines] == _SUBJECTS
    assert {line[:9].strip() for line in lines} <= {"ok", "warning"}
    assert "neither certificate nor clock was looked at; `confide client join ADDRESS`" in lines[1]
    assert code == 0
    assert last.startswith("problems: 0, warnings: ")


def test_with_a_server_certificate_and_clock_are_two_lines(
    site: Path, shelved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = make_keys(tmp_path / "keys", "127.0.0.1")
    with health_server(keys) as server:
        _join(site, keys, server.port)
        code, output = _call(site, monkeypatch, capsys)
    assert code == 0
    assert output.splitlines()[1].startswith(f"ok       server: 127.0.0.1:{server.port} answers")
    assert output.splitlines()[2].startswith("ok       clock: less than 2 s")
    assert server.requests == ["GET /health"]


@pytest.mark.parametrize(
    ("ahead", "state", "text"),
    [(-9.0, "problem", "about 9 s ahead of the server's"), (30.0, "problem", "behind"), (None, "warning", "no time")],
)
def test_a_clock_that_is_off_is_a_problem(
    site: Path, tmp_path: Path, ahead: float | None, state: str, text: str
) -> None:
    keys = make_keys(tmp_path / "keys", "127.0.0.1")
    with health_server(keys, Health(ahead=ahead)) as server:
        _join(site, keys, server.port)
        clock = _find(site, "clock")
    assert clock.state == state
    assert text in clock.text.replace("10 s", "9 s").replace("8 s", "9 s")  # known to a second


@pytest.mark.parametrize(("ahead", "state"), [(1.9, "ok"), (-1.9, "ok"), (2.1, "warning"), (3.1, "problem")])
def test_what_a_second_of_doubt_leaves_open_is_a_warning(ahead: float, state: str) -> None:
    assert doctor._clock(ahead)[0] == state


def test_a_server_that_is_not_there_is_a_problem_and_the_other_checks_go_on(
    site: Path, tmp_path: Path, shelved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _join(site, make_keys(tmp_path / "keys", "127.0.0.1"), free_port())
    code, output = _call(site, monkeypatch, capsys)
    assert code == 1
    assert [line[9:].partition(":")[0] for line in output.splitlines()[:-1]] == _SUBJECTS
    assert "problem  server: 127.0.0.1" in output
    assert output.splitlines()[-1].startswith("problems: 1, ")


def test_an_intercepted_server_is_a_problem(site: Path, tmp_path: Path) -> None:
    with health_server(make_keys(tmp_path / "other", "127.0.0.1")) as server:
        _join(site, make_keys(tmp_path / "keys", "127.0.0.1"), server.port)
        assert _find(site, "server").state == "problem"
        assert not [finding for finding in doctor.examine(site) if finding.subject == "clock"]


def test_a_damaged_kit_is_a_problem(site: Path) -> None:
    (site.parent / "state").mkdir()
    (site.parent / "state" / "kit.json").write_text("{", encoding="utf-8")
    assert _find(site, "server").state == "problem"


def test_an_unusable_site_is_bad_input(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write_text("[institution]\n", encoding="utf-8")
    code, output = _call(site, monkeypatch, capsys)
    assert code == 2
    assert output.count("\n") == 1


def test_looking_needs_neither_torch_nor_flower() -> None:
    """Until the device is looked at, which is last."""
    program = (
        "import sys, confide.client.commands.doctor as d; print([m for m in ('torch', 'flwr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Check by check


def test_broken_lines_are_counted_on_the_screen_and_told_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = write_site(tmp_path, [*make_records(3), {"note": CANARY}, {"text": CANARY, "label": CANARY}])
    with (tmp_path / "notes.jsonl").open("a", encoding="utf-8") as file:
        file.write(CANARY)
    code, output = _call(site, monkeypatch, capsys)
    assert code == 1
    report = tmp_path / "local" / "doctor.txt"
    assert "2 of 6 lines cannot be read, 0 would contribute nothing; no run is joined while a line is broken" in output
    assert str(report) in output
    assert CANARY not in output
    assert "line 4 is broken: no column 'text'" in report.read_text(encoding="utf-8")
    assert "line 6 is broken: not a line of JSON" in report.read_text(encoding="utf-8")


def test_labels_that_a_run_on_offer_does_not_know_are_a_warning(tmp_path: Path, make_run: MakeRun) -> None:
    site = write_site(tmp_path, [*make_records(3), {"text": "x", "label": "J18"}], policy={"studies": ["test"]})
    assert _find(site, "data").state == "ok"
    keep_offer(tmp_path / "state" / "offers", make_run())
    data = _find(site, "data")
    assert data.state == "warning"
    assert data.text.startswith("0 of 4 lines cannot be read, 1 would contribute nothing")


def test_a_run_that_is_approved_before_it_was_offered_is_looked_at_too(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    """As the documents have it: approved from its file, so that the offer waits for nobody."""
    records = [*make_records(19), {"text": "x", "label": "J18"}]
    site = write_site(tmp_path, records, policy={"studies": ["test"], "require_approval": True})
    approve_run(lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), "test", site)
    assert _find(site, "data").text.startswith("0 of 20 lines cannot be read, 1 would contribute nothing")
    write_site(tmp_path, records, policy={"studies": ["test"], "base_models": ["any"]})
    (tmp_path / "models").mkdir()
    shutil.copytree(base_folder, tmp_path / "models" / base_folder.name)
    assert _find(site, "base models").state == "ok"
    (tmp_path / "models" / base_folder.name / "config.json").write_text("{}", encoding="utf-8")
    assert _find(site, "base models").state == "problem", "the run needs another"


def test_a_run_that_was_replaced_is_looked_at_no_more(tmp_path: Path, make_run: MakeRun, base_folder: Path) -> None:
    """One of whose labels the designer forgot one."""
    records = [*make_records(19), {"text": "x", "label": "neutral"}]
    site = write_site(tmp_path, records, policy={"studies": ["test"], "require_approval": True})
    labels = ["negative", "positive", "neutral"]
    for task, state in ((labels[:2], "warning"), (labels, "ok"), (labels[:2], "warning")):
        run = make_run(local={"nominal_units": 20}, task={"kind": "text-classification", "labels": task})
        approve_run(lock(run, hash_model(base_folder)), "test", site)
        assert _find(site, "data").state == state


def test_a_run_that_needs_no_approval_is_looked_at_too(tmp_path: Path, make_run: MakeRun, base_folder: Path) -> None:
    site = write_site(tmp_path, [*make_records(19), {"text": "x", "label": "J18"}])
    opened = open_site(site)
    asking = Asking(lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), lambda: opened)
    assert kinds(asking.offer()) == ["accepted"]
    assert _find(site, "data").state == "warning"
    assert [study["status"] for study in list_studies(site)] == ["open, this run needs no approval"]
    with pytest.raises(PolicyError):
        agree(lock(make_run(federation={"num_rounds": 1001}), "cd" * 32), opened, "ab" * 16)
    assert len(list_studies(site)) == 1, "what is refused is not looked at"


def test_people_who_are_counted_under_another_dataset_id_are_a_problem(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    """A round that goes on counts them, in both ledgers, for one's record must not decide about another's units."""
    run, state = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), {"dir": str(tmp_path / "state")}
    state["anchor"] = str(tmp_path / "anchor")
    records, sites = make_records(40), list[Path]()
    for name, own in (("one", records[:20]), ("two", records[20:])):
        sites.append(write_site(tmp_path / name, own, dataset={"id": name}, state=state))
        assert kinds(Asking(run, lambda: open_site(sites[-1])).offer()) == ["accepted"]
        assert _find(sites[-1], "people").state == "ok"
    write_records(tmp_path / "two" / "notes.jsonl", [*records[20:], *records[:3], *records[:1]])
    for _ in range(2):
        found = _find(sites[1], "people")
        assert (found.state, found.text.partition(" ")[0]) == ("problem", "3")
    assert _find(sites[0], "people").state == "ok", "to look claims nobody"
    (tmp_path / "two" / "notes.jsonl").unlink()
    assert _find(sites[1], "people").state == "warning"


def test_a_file_that_is_not_there_is_a_problem(site: Path) -> None:
    (site.parent / "notes.jsonl").unlink()
    data = _find(site, "data")
    assert (data.state, "No such file" in data.text) == ("problem", True)


def test_a_parquet_text_that_is_not_utf_8_is_a_line_that_contributes_nothing(tmp_path: Path, make_run: MakeRun) -> None:
    site = write_site(tmp_path, dataset={"path": "notes.parquet"}, policy={"studies": ["test"]})
    texts = pa.array([b"good film", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"text": texts, "label": ["positive", "positive"]}), tmp_path / "notes.parquet")
    keep_offer(tmp_path / "state" / "offers", make_run())
    data = _find(site, "data")
    assert data.state == "warning"
    assert data.text.startswith("0 of 2 lines cannot be read, 1 would contribute nothing")


def test_a_base_model_with_another_hash_is_a_problem_that_names_both(tmp_path: Path, shelved: str) -> None:
    site = write_site(tmp_path, policy={"base_models": ["ab" * 32]})
    found = _find(site, "base models")
    assert found.state == "problem"
    assert f"names {'ab' * 32}, which is not here" in found.text
    assert f"{tmp_path / 'models' / 'tiny'} ({shelved})" in found.text
    assert _find(write_site(tmp_path, policy={"base_models": [shelved]}), "base models").state == "ok"


@pytest.mark.parametrize(("allowed", "text"), [(["any"], "here: none"), ([], "every run is refused")])
def test_no_base_model_at_all_is_a_warning(tmp_path: Path, allowed: list[str], text: str) -> None:
    found = _find(write_site(tmp_path, policy={"base_models": allowed}), "base models")
    assert found.state == "warning"
    assert text in found.text


def test_a_run_on_offer_needs_its_own_base_model(
    site: Path, shelved: str, make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    offers = tmp_path / "state" / "offers"
    keep_offer(offers, lock(make_run(), shelved))
    assert _find(site, "base models").state == "ok"
    keep_offer(offers, lock(make_run(), "cd" * 32))
    found = _find(site, "base models")
    assert found.state == "problem"
    assert f"study test: {str(base_folder)!r} hashes to {shelved}, must be {'cd' * 32}" in found.text
    keep_offer(offers, lock(make_run(model={"base": "no_such_package"}), shelved))
    assert "'no_such_package' is not an installed package" in _find(site, "base models").text


def test_models_are_found_in_packages_and_in_the_hubs_cache(
    tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "hub" / "models--a--b" / "snapshots" / "c"
    shutil.copytree(base_folder, cached)
    package = tmp_path / "installed" / "carrier"
    shutil.copytree(base_folder, package)
    (package / "1_Pooling").mkdir()
    (package / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    files = [path.relative_to(tmp_path / "installed") for path in package.rglob("*.*")]
    carrier = SimpleNamespace(files=files, locate_file=lambda file: tmp_path / "installed" / file)
    empty = SimpleNamespace(files=None)
    monkeypatch.setattr(base_models.importlib.metadata, "distributions", lambda: iter([empty, carrier]))
    assert list(base_models.models_here(tmp_path / "none")) == [package, cached]


def test_a_ledger_that_is_not_whole_is_a_problem(site: Path) -> None:
    open_site(site)
    assert _find(site, "ledger").text.startswith("0 rows, chain whole")
    name = hashlib.sha256(b"people").hexdigest()[:16]
    (site.parent / "state-anchor" / f"{name}.json").write_text('{"number": 3, "hash": "x"}', encoding="utf-8")
    ledger = _find(site, "ledger")
    assert (ledger.state, "an old copy was put back" in ledger.text) == ("problem", True)


@pytest.mark.parametrize(("free", "state"), [(10, "problem"), (500, "warning"), (5000, "ok")])
def test_little_room_on_the_fullest_disk_is_told(
    site: Path, free: int, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = site.parent / "state-anchor"
    anchor.mkdir()

    def usage(place: Path) -> Any:
        return SimpleNamespace(free=(free if place == anchor else 10**6) * 2**20)

    monkeypatch.setattr(machine.shutil, "disk_usage", usage)
    disk = _find(site, "disk")
    assert disk.state == state
    assert str(anchor) in disk.text


def test_a_device_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    assert _find(write_site(tmp_path), "device").line() == "ok       device: cpu; the base model in float32"
    device = _find(write_site(tmp_path, compute={"device": "cuda:99"}), "device")
    assert (device.state, "not on this machine" in device.text) == ("problem", True)


@pytest.mark.parametrize(
    "error",
    [
        ConfideError("a; b"),
        OSError(5, "Input/output error"),
        ImportError("libcuda.so"),
        pa.ArrowMemoryError("malloc of size 64 failed"),
    ],
)
def test_whatever_stands_in_the_way_of_a_check_is_a_finding(error: Exception) -> None:
    def check() -> machine.CheckResult:
        raise error

    found = machine.finding("x", check)
    assert found.state == "problem"
    assert str(error) in found.text


def test_too_few_lines_that_a_run_can_use_are_a_problem(
    tmp_path: Path, make_run: MakeRun, shelved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{**record, "label": number % 2} for number, record in enumerate(make_records(40))]
    site = write_site(tmp_path, records, policy={"studies": ["test"]})
    keep_offer(tmp_path / "state" / "offers", lock(make_run(local={"nominal_units": 20}), shelved))
    code, output = _call(site, monkeypatch, capsys)
    assert code == 1
    assert "study test could use 0 of 40 lines (0 %), dataset.min_usable_fraction = 0.5" in output
    assert "most often (20 lines): label 0 is not one of" in output


def test_the_precision_that_the_site_sets_is_told(site: Path) -> None:
    for precision in ("float32", "bfloat16"):
        write_site(site.parent, compute={"precision": precision})
        assert _find(site, "device").text == f"cpu; the base model in {precision}"
