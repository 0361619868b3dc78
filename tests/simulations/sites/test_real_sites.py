"""`confide simulate --site`: a run with real sites charges their ledgers, and their policies always win."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.installations import GENEROUS, write_records, write_site
from support.json_files import read_json
from support.leaving import CANARY, canary_site, disguises, search
from support.real_sites import NAMES, account_of, kinds_of, reserved_by, set_policy
from support.sites import make_records
from support.tiny_bert import tiny_tokenizer

from confide.common.errors import InputError
from confide.common.verify.command import verify
from confide.simulations.audit.membership import require_attackable
from confide.simulations.interface import shown

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]
Federate = Callable[..., tuple[int, str, str]]


# What it costs, and what it says


def test_a_run_with_real_sites_charges_the_real_ledgers(
    federate: Federate, sites: dict[str, Path], tmp_path: Path
) -> None:
    code, output, errors = federate(options=("--json",))
    assert code == 0, errors
    assert list(json.loads(output)["epsilon"]) == list(NAMES), "in the order in which they are named"
    for path in sites.values():
        assert kinds_of(path).count("reserve") == kinds_of(path).count("seal") == 2
        assert reserved_by(path) == account_of(path).studies["small"].steps == 2
        assert not account_of(path).first["simulated"]
    spent = {row["institution"]: row["epsilon"] for row in read_json(tmp_path / "out" / "privacy.json")["institutions"]}
    assert spent == {name: account_of(path).epsilon_spent(1e-5) for name, path in sites.items()}


def test_it_does_not_call_itself_a_simulation(
    federate: Federate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = federate()
    assert code == 0, errors
    report, card = (
        (tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("report.html", "adapter/README.md")
    )
    assert "real institutions on one machine" in report
    for text in (report, card):
        assert "all institutions and the server were on one machine: nobody was protected from its operator" in text
        assert "simulated" not in text.lower()
    verify(tmp_path / "out")
    assert "simulated: False" in capsys.readouterr().out
    lock = tmp_path / "out" / "run.lock.toml"
    lock.write_text(re.sub('data = ".*"', 'data = "questions"', lock.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(InputError, match="its institutions were real ones"):
        require_attackable(tmp_path / "out", 0)


def test_it_says_what_it_charges_before_it_starts(
    federate: Federate, sites: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*rest: object, **settings: object) -> None:
        raise InputError("and here the work would begin")

    monkeypatch.setattr(shown, "carry_out", stop)
    code, output, errors = federate("local.steps=3")
    assert code == 2
    warning, _, rest = errors.partition("confide: error: and here")
    assert "charges these ledgers, for ever" in warning
    for name in NAMES:
        [line] = [line for line in warning.splitlines() if name in line]
        assert "dataset 'people', epsilon 0 of 100 spent; up to 6 steps more" in line
    assert all(kinds_of(path) == [] for path in sites.values())
    assert "charges" not in output + rest


def test_it_says_what_was_spent_before(federate: Federate, sites: dict[str, Path]) -> None:
    federate()
    spent = account_of(sites["st-mary"]).epsilon_spent(GENEROUS["max_delta"])
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
    assert json.loads(output)["score"] is None
    assert read_json(tmp_path / "out" / "privacy.json")["status"] == "completed"
    assert "<h2>Samples</h2>" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    code, output, _ = federate("study.name=test", out="second")
    assert code == 0
    assert "not measured: evaluation.data names no file" in output


def test_public_data_give_the_score(federate: Federate, tmp_path: Path) -> None:
    write_records(tmp_path / "public.jsonl", make_records(6))
    summary = json.loads(federate("evaluation.data=public.jsonl", options=("--json",))[1])
    assert list(summary["score"]["per_institution"]) == ["public"]
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "The finished adapter on 6 records of the public test data." in report
    shown = [html.unescape(text) for text in re.findall(r"<tr><td>(.*?)</td>", report)]
    assert shown == [record["text"] for record in make_records(6)]


def test_a_simulation_is_not_charged_by_its_side(confide: Confide, run_file: Path, sites: dict[str, Path]) -> None:
    assert confide("simulate", run_file, "--quiet")[0] == 0
    assert all(kinds_of(path) == [] for path in sites.values())


# Refused before anything happens


def _untouched(sites: dict[str, Path], out: Path) -> None:
    assert not out.exists()
    assert all(kinds_of(path) == [] for path in sites.values())


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
        set_policy(path, require_approval=True)
    code, _, errors = federate()
    assert code == 3, errors
    for name in NAMES:
        assert any(name in line and "`confide client approve small`" in line for line in errors.splitlines())
    assert all(reserved_by(path) == 0 for path in sites.values())
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
        set_policy(sites[name], **policy)
    code, _, errors = federate("federation.min_clients=2")
    assert code == 3, errors
    assert errors.count(words) == 2
    assert all(reserved_by(path) == 0 for path in sites.values())
    assert "; st-jude: declined; st-mary: declined" in errors
    assert "node" not in errors
    assert not (tmp_path / "out").exists(), "nothing was asked, so there is nothing to look at"


def test_the_run_goes_on_without_an_institution_whose_policy_refuses(
    federate: Federate, sites: dict[str, Path], tmp_path: Path
) -> None:
    set_policy(sites["st-jude"], max_steps=1)
    code, output, errors = federate(options=("--json",))
    assert code == 0, errors
    assert list(json.loads(output)["epsilon"]) == ["st-mary", "st-luke"]
    assert [reserved_by(path) for path in sites.values()] == [2, 0, 2]
    rows = read_json(tmp_path / "out" / "privacy.json")["institutions"]
    assert [row["institution"] for row in rows] == ["st-mary", "st-luke"]
    assert "max_steps" in (sites["st-jude"].parent / "state" / "refusals.jsonl").read_text(encoding="utf-8")


def test_a_run_with_real_sites_without_privacy_says_so_and_ends_the_budget(
    federate: Federate, sites: dict[str, Path]
) -> None:
    assert federate("privacy.unit=none")[0] == 3
    for path in sites.values():
        set_policy(path, allow_no_privacy=True)
    code, _, errors = federate("privacy.unit=none", out="second")
    assert code == 0, errors
    assert errors.count("WITHOUT PRIVACY") == 3
    assert all(account_of(path).infinite for path in sites.values())
    code, _, errors = federate("study.name=test", out="third")
    assert code == 4, errors
    assert "used without privacy before" in errors


# Lines that can be used


def test_a_site_that_could_use_too_few_lines_is_refused_before_any_charge(
    federate: Federate, sites: dict[str, Path], tmp_path: Path
) -> None:
    """A person asks here, and no server, so it may be told, approval or not."""
    path = sites["st-jude"]
    (path.parent / "notes.jsonl").write_text('{"text": "good", "label": "Positive"}\n' * 20, encoding="utf-8")
    code, _, errors = federate()
    assert code == 1
    assert "'st-jude': study small could use 0 of 20 lines (0 %)" in errors
    assert "most often (20 lines): label 'Positive' is not one of" in errors
    assert [account_of(path).studies for path in sites.values()] == [{}, {}, {}]
    assert not (tmp_path / "out").exists()


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
