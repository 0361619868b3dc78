"""`confide audit`: what it prints and writes, and how it ends."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from confide.simulations.audit import heads, matching, mechanism
from confide.simulations.audit.verdicts import TRIALS, Attack, Audit, Effort, View

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
    code, output, _ = confide("audit", run_file)
    assert code == 1
    assert "REFUTED" in output
    assert "DOES NOT HOLD" in output
    assert "page: runs/audit-small/audit.html" in output


def test_a_run_without_privacy_is_refused(confide: Confide, settings: Settings, run_file: Path) -> None:
    code, _, errors = confide("audit", run_file, *settings("privacy.unit=none"))
    assert code != 0
    assert "states no epsilon" in errors
    assert "Traceback" not in errors
