"""`confide audit`: what it prints and writes, and how it ends."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from confide.simulations.audit import mechanism, membership, text_canaries
from confide.simulations.audit.membership import Membership
from confide.simulations.audit.text_canaries import TextAudit
from confide.simulations.audit.verdicts import ONE_RUN, TRIALS, Attack, Audit, Effort, View
from confide.simulations.reconstruction import heads, matching

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _small_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the attacks on one round small: what they find is the matter of tests/simulations/audit."""
    monkeypatch.setattr(heads, "attack_head", functools.partial(heads.attack_head, num_texts=3, candidates=20))
    monkeypatch.setattr(matching, "match", functools.partial(matching.match, limits=matching.Limits(1, 1, 1.0)))


def test_it_attacks_a_run_and_writes_a_page(
    confide: Confide, settings: Settings, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.simulations.audit.verdicts.Effort", lambda canaries: Effort(canaries, lone=20))
    code, output, errors = confide("audit", run_file, "--canaries", "300", "--out", "audited", "--json")
    assert (code, "300 made-up canaries" in errors) == (0, True)
    facts = json.loads(output)
    assert facts == json.loads(Path("audited/audit.json").read_text(encoding="utf-8"))
    assert (facts["texts"]["canaries"], facts["texts"]["holds"]) == (200, True)
    [observer] = facts["mechanism"]["observers"]
    assert observer["epsilon_at_least"] <= observer["stated_epsilon"]
    assert facts["mechanism"]["rounds"] == 2
    assert facts["head"]["named"]["without_noise"] == 1
    assert facts["matching"]["texts"] == 1
    assert "learns no text to write" in facts["exposure"]["void"]
    page = Path("audited/audit.html").read_text(encoding="utf-8")
    assert ("Confide audit" in page, "3 texts, each among 20" in page) == (True, True)
    code, _, errors = confide("audit", run_file, "--out", "audited")
    assert (code != 0, "must be new or empty" in errors) == (True, True)


def test_it_ends_with_1_when_an_attack_proves_more_than_is_stated(
    confide: Confide, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [View("the server", 1.0, [Attack("likelihood", TRIALS, 2.0, 0.7, 0.2)])]
    monkeypatch.setattr(mechanism, "audit_mechanism", lambda run, effort: Audit(effort, 2, 2, 0.1, views))
    code, output, _ = confide("audit", run_file, "--texts", 0)
    assert code == 1
    assert "REFUTED" in output
    assert "DOES NOT HOLD" in output
    assert "page: runs/audit-small/audit.html" in output


def test_a_run_without_privacy_is_refused(confide: Confide, settings: Settings, run_file: Path) -> None:
    code, _, errors = confide("audit", run_file, *settings("privacy.unit=none"))
    assert code != 0
    assert "states no epsilon" in errors
    assert "Traceback" not in errors


def test_a_text_canary_that_proves_too_much_ends_it_with_1(
    confide: Confide, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = [View("the server", 1.0, [Attack("likelihood", TRIALS, 0.5, 0.7, 0.2)])]
    found = View("whoever sees it", 1.0, [Attack("loss", ONE_RUN, 2.5, 1.0, None)])
    monkeypatch.setattr(mechanism, "audit_mechanism", lambda run, effort: Audit(effort, 2, 2, 0.1, fine))
    monkeypatch.setattr(text_canaries, "audit_texts", lambda run, count: TextAudit(count, 90, 0.95, 1.0, found, 3.2))
    code, output, errors = confide("audit", run_file, "--texts", 180)
    assert code == 1
    assert "2.50   REFUTED   180 made-up texts" in output
    assert "one simulation of it with 180 made-up texts" in errors
    page = Path("runs/audit-small/audit.html").read_text(encoding="utf-8")
    assert "does not hold on this installation" in page
    assert "180 canaries prove an epsilon of 3.20 at most" in page


def test_a_finished_simulation_is_audited_and_its_report_says_what_was_found(
    confide: Confide, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Membership(40, 20, {"low loss": 0.0151}, {"low loss": [0.0] * 201}, 0.0333, [1.0] * 201, shadows=4)
    fine = [View("the server", 1.0, [Attack("likelihood", TRIALS, 0.5, 0.7, 0.2)])]
    assert confide("simulate", run_file, "--out", "done", "--quiet")[0] == 0
    monkeypatch.setattr(membership, "require_attackable", lambda folder, shadows: None)
    monkeypatch.setattr(membership, "attack_finished", lambda folder, shadows, tell: found)
    monkeypatch.setattr(mechanism, "audit_mechanism", lambda run, effort: Audit(effort, 2, 2, 0.1, fine))
    code, output, _ = confide("audit", "--finished", "done", "--shadows", 4, "--texts", 0)
    assert code == 0
    words = "an attacker who accuses 1% of outsiders finds at most 3.4% of members; our best attack found 1.5%"
    assert words in output
    report = Path("done/report.html").read_text(encoding="utf-8")
    assert f"Attacked afterwards: {words}, with 4 shadow runs." in report
    assert words in Path("runs/audit-done/audit.html").read_text(encoding="utf-8").replace("An attacker", "an attacker")
    (Path("done") / "report.json").unlink()
    monkeypatch.chdir("done")  # a folder has its own name, however it is written
    _, _, errors = confide("audit", "--finished", ".", "--texts", 0)
    assert "/report.html stays as it is" in errors
    assert json.loads(Path("runs/audit-done/audit.json").read_text(encoding="utf-8"))["finished"] == "done"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["RUN", "--finished", "done"], "the run of that folder is attacked; leave them out"),
        (["RUN", "--shadows", "4"], "--shadows 4 without --finished"),
        (["--finished", "nowhere"], "must be the folder of a finished simulation"),
    ],
)
def test_options_that_do_not_fit_together_are_refused_at_once(
    confide: Confide, run_file: Path, words: list[str], why: str
) -> None:
    code, _, errors = confide("audit", *(str(run_file) if word == "RUN" else word for word in words))
    assert code == 2
    assert why in " ".join(errors.split())
