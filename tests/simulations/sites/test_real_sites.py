"""`confide simulate --site`: a run with real sites charges their ledgers, and their policies always win."""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from support.installations import GENEROUS, write_records, write_site
from support.leaving import CANARY, canary_site, disguises, search
from support.sites import make_records
from support.tiny_bert import tiny_tokenizer

from confide.client.privacy.account import Account
from confide.client.site.installation import open_site
from confide.common.errors import InputError
from confide.simulations.engines.faults import Answer, no_faults
from confide.simulations.engines.federation import simulate
from confide.simulations.studies import study

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]
Federate = Callable[..., tuple[int, str, str]]
NAMES = ("st-mary", "st-jude", "st-luke")


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, Path]:
    """Three institutions with their own records, which agree to any run of study "small"."""
    return {
        name: write_site(tmp_path / name, make_records(30)[10 * number :][:10], name=name)
        for number, name in enumerate(NAMES)
    }


@pytest.fixture
def federate(confide: Confide, settings: Settings, run_file: Path, sites: dict[str, Path]) -> Federate:
    """``federate("federation.num_rounds=3", out="first")``: the command with all sites."""

    def call(*pairs: str, out: str = "out", options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        named = [part for path in sites.values() for part in ("--site", str(path))]
        return confide("simulate", run_file, *named, "--out", run_file.parent / out, *settings(*pairs), *options)

    return call


def _account(path: Path) -> Account:
    """As a client that starts now would find it on the disk."""
    return open_site(path).ledger.account()


def _kinds(path: Path) -> list[str]:
    return [row["kind"] for row, _ in open_site(path).ledger.rows()]


def _reserved(path: Path, name: str = "small") -> int:
    studies = _account(path).studies
    return studies[name].reserved_steps if name in studies else 0


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _policy(path: Path, **policy: Any) -> None:
    """Edit the policy of a site.toml."""
    name = path.parent.name
    records = [json.loads(line) for line in (path.parent / "notes.jsonl").read_text(encoding="utf-8").splitlines()]
    write_site(path.parent, records, name=name, policy=policy)


# What it costs, and what it says


def test_a_run_with_real_sites_charges_the_real_ledgers(
    federate: Federate, sites: dict[str, Path], tmp_path: Path
) -> None:
    code, output, errors = federate(options=("--json",))
    assert code == 0, errors
    assert list(json.loads(output)["epsilon"]) == list(NAMES), "in the order in which they are named"
    for path in sites.values():
        assert _kinds(path).count("reserve") == _kinds(path).count("seal") == 2
        assert _reserved(path) == _account(path).studies["small"].steps == 2
        assert not _account(path).first["simulated"]
    spent = {row["institution"]: row["epsilon"] for row in _read(tmp_path / "out" / "privacy.json")["institutions"]}
    assert spent == {name: _account(path).epsilon_spent(1e-5) for name, path in sites.items()}


def test_it_says_what_it_charges_before_it_starts(
    federate: Federate, sites: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*rest: object, **settings: object) -> None:
        raise InputError("and here the work would begin")

    monkeypatch.setattr(study, "carry_out", stop)
    code, output, errors = federate("local.steps=3")
    assert code == 2
    warning, _, rest = errors.partition("confide: error: and here")
    assert "charges these ledgers, for ever" in warning
    for name in NAMES:
        [line] = [line for line in warning.splitlines() if name in line]
        assert "dataset 'people', epsilon 0 of 100 spent; up to 6 steps more" in line
    assert all(_kinds(path) == [] for path in sites.values())
    assert "charges" not in output + rest


def test_it_says_what_was_spent_before(federate: Federate, sites: dict[str, Path]) -> None:
    federate()
    spent = _account(sites["st-mary"]).epsilon_spent(GENEROUS["max_delta"])
    assert spent > 0
    assert f"epsilon {spent:g} of 100 spent" in federate(out="second")[2]


def test_standard_output_is_json_alone(federate: Federate) -> None:
    code, output, errors = federate(options=("--json",))
    assert code == 0
    assert json.loads(output)["status"] == "completed"
    assert "charges these ledgers" in errors


def test_quiet_keeps_the_warning(federate: Federate) -> None:
    code, output, errors = federate(options=("--quiet",))
    assert (code, output) == (0, "")
    assert "charges these ledgers" in errors


def test_without_public_data_there_is_no_accuracy_and_a_finished_run(federate: Federate, tmp_path: Path) -> None:
    code, output, errors = federate(options=("--json",))
    assert code == 0, errors
    assert json.loads(output)["accuracy"] is None
    assert _read(tmp_path / "out" / "privacy.json")["status"] == "completed"
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    code, output, _ = federate("study.name=test", out="second")
    assert code == 0
    assert "not measured: evaluation.data names no file" in output


def test_public_data_give_the_accuracy(federate: Federate, tmp_path: Path) -> None:
    write_records(tmp_path / "public.jsonl", make_records(6))
    summary = json.loads(federate("evaluation.data=public.jsonl", options=("--json",))[1])
    assert list(summary["accuracy"]["per_institution"]) == ["public"]


def test_a_simulation_is_not_charged_by_its_side(confide: Confide, run_file: Path, sites: dict[str, Path]) -> None:
    assert confide("simulate", run_file, "--quiet")[0] == 0
    assert all(_kinds(path) == [] for path in sites.values())


# Refused before anything happens


def _untouched(sites: dict[str, Path], out: Path) -> None:
    assert not out.exists()
    assert all(_kinds(path) == [] for path in sites.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--baselines",), "--baselines with --site is refused"),
        (("--engine", "ray"), "--engine ray with --site is refused"),
    ],
)
def test_what_such_a_run_cannot_be_is_refused(
    federate: Federate, sites: dict[str, Path], tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    code, output, errors = federate(options=options)
    assert (code, output) == (2, "")
    assert words in errors
    _untouched(sites, tmp_path / "out")


@pytest.mark.parametrize("again", ["st-mary", "another folder"])
def test_one_institution_takes_part_once(
    federate: Federate, sites: dict[str, Path], tmp_path: Path, again: str
) -> None:
    sites["again"] = sites.get(again) or write_site(tmp_path / again, name="st-mary")
    code, output, errors = federate()
    assert (code, output) == (2, "")
    assert "institution.name = 'st-mary' is that of another --site" in errors
    _untouched(sites, tmp_path / "out")


def test_one_ledger_takes_part_once(federate: Federate, sites: dict[str, Path], tmp_path: Path) -> None:
    home = sites["st-mary"].parent
    state = {"dir": str(home / "state"), "anchor": str(home / "state-anchor")}
    sites["twin"] = write_site(tmp_path / "twin", make_records(10), name="st-mary's twin", state=state)
    assert federate()[0] == 2


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("federation.min_clients=4", "federation.min_clients = 4"),
        ("model.base=./nowhere", "nowhere"),
        ("evaluation.data=none.jsonl", "none.jsonl"),
    ],
)
def test_bad_settings_charge_nothing(
    federate: Federate, sites: dict[str, Path], tmp_path: Path, pair: str, words: str
) -> None:
    code, output, errors = federate(pair)
    assert (code, output) == (2, ""), errors
    assert words in errors
    _untouched(sites, tmp_path / "out")


def test_a_site_that_is_not_there_is_bad_input(federate: Federate, sites: dict[str, Path], tmp_path: Path) -> None:
    sites["gone"] = tmp_path / "gone" / "site.toml"
    code, output, errors = federate()
    assert (code, output) == (2, "")
    assert "gone/site.toml" in errors
    assert not (tmp_path / "out").exists()


# Policies


def test_an_unapproved_run_names_the_command_that_approves_it(
    federate: Federate, confide: Confide, sites: dict[str, Path]
) -> None:
    for path in sites.values():
        _policy(path, require_approval=True)
    code, _, errors = federate()
    assert code == 3, errors
    for name in NAMES:
        assert any(name in line and "`confide client approve small`" in line for line in errors.splitlines())
    assert all(_reserved(path) == 0 for path in sites.values())
    for path in sites.values():
        code, _, errors = confide("client", "approve", "small", "--site", path)
        assert code == 0, errors
    code, _, errors = federate(out="second")
    assert code == 0, errors
    assert federate("local.steps=2", out="third")[0] == 3, "another run of the study needs another approval"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"max_steps": 1}, "policy.max_steps = 1"),
        ({"studies": ["another"]}, "policy.studies"),
        ({"max_epsilon": None}, "policy.max_epsilon is not set"),
        ({"base_models": ["0" * 64]}, "policy.base_models"),
    ],
)
def test_too_few_because_of_policies_is_exit_3_with_each_reason(
    federate: Federate, sites: dict[str, Path], tmp_path: Path, policy: dict[str, Any], words: str
) -> None:
    for name in NAMES[:2]:
        _policy(sites[name], **policy)
    code, _, errors = federate("federation.min_clients=2")
    assert code == 3, errors
    assert errors.count(words) == 2
    assert all(_reserved(path) == 0 for path in sites.values())
    assert "; st-jude: declined; st-mary: declined" in errors
    assert "node" not in errors
    assert not (tmp_path / "out").exists(), "nothing was asked, so there is nothing to look at"


def test_the_run_goes_on_without_an_institution_whose_policy_refuses(
    federate: Federate, sites: dict[str, Path], tmp_path: Path
) -> None:
    _policy(sites["st-jude"], max_steps=1)
    code, output, errors = federate(options=("--json",))
    assert code == 0, errors
    assert list(json.loads(output)["epsilon"]) == ["st-mary", "st-luke"]
    assert [_reserved(path) for path in sites.values()] == [2, 0, 2]
    rows = _read(tmp_path / "out" / "privacy.json")["institutions"]
    assert [row["institution"] for row in rows] == ["st-mary", "st-luke"]
    assert "max_steps" in (sites["st-jude"].parent / "state" / "refusals.jsonl").read_text(encoding="utf-8")


def test_a_run_with_real_sites_without_privacy_says_so_and_ends_the_budget(
    federate: Federate, sites: dict[str, Path]
) -> None:
    assert federate("privacy.unit=none")[0] == 3
    for path in sites.values():
        _policy(path, allow_no_privacy=True)
    code, _, errors = federate("privacy.unit=none", out="second")
    assert code == 0, errors
    assert errors.count("WITHOUT PRIVACY") == 3
    assert all(_account(path).infinite for path in sites.values())
    code, _, errors = federate("study.name=test", out="third")
    assert code == 4, errors
    assert "used without privacy before" in errors


# Lines that can be used


def test_a_site_that_could_use_too_few_lines_is_refused_before_anything_is_charged(
    federate: Federate, sites: dict[str, Path], tmp_path: Path
) -> None:
    """A person asks here, and no server, so it may be told, approval or not."""
    path = sites["st-jude"]
    (path.parent / "notes.jsonl").write_text('{"text": "good", "label": "Positive"}\n' * 20, encoding="utf-8")
    code, _, errors = federate()
    assert code == 1
    assert "'st-jude': study small could use 0 of 20 lines (0 %)" in errors
    assert "most often (20 lines): label 'Positive' is not one of" in errors
    assert [_account(path).studies for path in sites.values()] == [{}, {}, {}]
    assert not (tmp_path / "out").exists()


# Budgets


def test_a_second_run_of_a_study_that_used_its_steps_is_exit_4(
    federate: Federate, sites: dict[str, Path], tmp_path: Path
) -> None:
    assert federate()[0] == 0
    code, _, errors = federate(out="second")
    assert code == 4, errors
    assert "all 2 steps of study small are spent" in errors
    assert [_reserved(path) for path in sites.values()] == [2, 2, 2]
    assert not (tmp_path / "second").exists(), "who is refused leaves nothing"


def test_a_new_study_that_does_not_fit_beside_the_old_one_is_exit_4(federate: Federate, sites: dict[str, Path]) -> None:
    assert federate()[0] == 0
    for path in sites.values():
        _policy(path, max_epsilon=_account(path).epsilon_spent(GENEROUS["max_delta"]) + 0.001)
    code, _, errors = federate("study.name=test", out="second")
    assert code == 4, errors
    assert "policy.max_epsilon" in errors
    assert [_reserved(path, "test") for path in sites.values()] == [0, 0, 0]


def _interrupt_in(number: int) -> Any:
    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        if message.metadata.group_id == str(number):
            raise KeyboardInterrupt
        return no_faults(message, answer)

    return functools.partial(simulate, faults=fault)


@pytest.mark.parametrize(
    ("num_rounds", "after"),
    [
        (4, 3),
        (5, 4),
        (6, 2),
    ],
)
def test_an_interrupted_run_leaves_fewer_rounds_and_the_next_is_exit_4(
    federate: Federate,
    sites: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_rounds: int,
    after: int,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(study, "simulate", _interrupt_in(after + 1))
        assert federate(f"federation.num_rounds={num_rounds}")[0] == 130
    assert [_reserved(path) for path in sites.values()] == [after] * 3
    code, _, errors = federate(f"federation.num_rounds={num_rounds}", out="second")
    assert [_reserved(path) for path in sites.values()] == [num_rounds] * 3, "the rest was used, and no more"
    assert code == 4, errors
    assert f"{num_rounds} of the {num_rounds} steps" in errors


def test_a_killed_run_is_repeated_with_what_is_left(
    federate: Federate,
    confide: Confide,
    settings: Settings,
    run_file: Path,
    sites: dict[str, Path],
    tmp_path: Path,
) -> None:
    """SIGKILL in mid-round: every ledger opens, is whole, and gives out no step twice."""
    named = [part for path in sites.values() for part in ("--site", str(path))]
    rounds = settings("federation.num_rounds=12")
    command = [sys.executable, "-m", "confide.common.cli.main", "simulate", str(run_file), *named, *rounds, "--quiet"]
    events = tmp_path / "killed" / "events.jsonl"
    with subprocess.Popen([*command, "--out", str(events.parent)]) as process:
        while not (events.is_file() and '"round": 5' in events.read_text(encoding="utf-8")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert all(4 <= _reserved(path) < 12 for path in sites.values())
    for path in sites.values():
        assert confide("client", "ledger", "verify", "--site", path)[0] == 0
    code, _, errors = federate("federation.num_rounds=12", out="second")
    assert code == 4, errors
    assert {_reserved(path) for path in sites.values()} == {12}
    sealed = [
        row["sha256"] for path in sites.values() for row, _ in open_site(path).ledger.rows() if row["kind"] == "seal"
    ]
    assert len(set(sealed)) == len(sealed) >= 3 * 11


# Nothing private in the run directory


def test_no_canary_reaches_the_run_directory(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    """Neither of a run that ends well, nor of one that its institutions end."""
    path = canary_site(tmp_path, policy={"studies": ["small"]})
    sets = settings("privacy.unit=group", "evaluation.validation_every=1")
    run_file.write_text(run_file.read_text(encoding="utf-8").partition("[simulation]")[0], encoding="utf-8")
    needles = disguises(CANARY, tiny_tokenizer())
    for out, expected, fewest in (("first", 0, 4), ("second", 4, 0)):
        code, _, errors = confide("simulate", run_file, "--site", path, "--out", tmp_path / out, *sets)
        assert code == expected, errors
        files = [file for file in (tmp_path / out).rglob("*") if file.is_file()]
        assert len(files) >= fewest
        for file in files:
            content = str(file.relative_to(tmp_path)).encode() + b"\n" + file.read_bytes()
            assert search(content, needles) == set(), file.name
    assert search(next(path.parent.glob("*/audit.jsonl")).read_bytes(), needles), "at home it is named"
