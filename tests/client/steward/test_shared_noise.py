"""A run whose institutions share noise, as a person reads, approves and finds it again: always with both numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.installations import write_site
from support.verifying import run_verify

from confide.client.answers.agreement import decision_on, is_waiting
from confide.client.answers.proposed_runs import keep_offer
from confide.client.commands import cli
from confide.client.commands.doctor import examine
from confide.client.privacy.account import AnswerKey
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import open_site
from confide.client.steward.approval import approve_run, review
from confide.client.steward.ledger_report import export_lines, ledger_facts, ledger_text
from confide.client.steward.status import status_facts, status_text
from confide.client.steward.studies import list_studies
from confide.common.config.run import RunConfig, lock, make_plan
from confide.common.errors import PolicyError
from confide.common.model.base_models import hash_model
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.filter import Charge, composed_epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.protocol.enrolment import partner_fingerprint
from confide.common.protocol.signatures import Identity

MakeRun = Callable[..., RunConfig]
PARTNERS = {name: Identity(bytes([number]) * 32).public_hex() for number, name in enumerate(("luke", "mark", "paul"))}
SHARING = {"max_epsilon": 5.0, "max_epsilon_if_broken": 20.0, "max_delta": 1e-5, "tolerate_colluding": 1}
COMPARED = {name: partner_fingerprint(key) for name, key in PARTNERS.items()}


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Path]:
    """A site.toml whose policy allows shared noise among partners whose fingerprints were compared."""

    def write(folder: str = "site", partners: dict[str, str] = COMPARED, **policy: Any) -> Path:
        return write_site(tmp_path / folder, name="mary", policy={**SHARING, **policy}, partners=partners)

    return write


@pytest.fixture
def run_of(make_run: MakeRun, base_folder: Path) -> Callable[..., RunConfig]:
    def locked(site: Path) -> RunConfig:
        keys = {"mary": open_site(site).identity.public_hex(), **PARTNERS}
        run = make_run(
            study={"name": "test", "institutions": list(keys), "keys": keys},
            federation={"num_rounds": 10, "aggregation": "secure-sum", "weights": "declared", "min_clients": 4},
            local={"steps": 1, "sampling_probability": 0.2, "nominal_units": 20},
            privacy={"max_colluding": 1},
        )
        return lock(run, hash_model(base_folder))

    return locked


def plan_of(run: RunConfig) -> PrivacyPlan:
    plan = make_plan(run, 20)
    assert isinstance(plan, PrivacyPlan)
    return plan


def test_a_person_reads_both_numbers_with_conditions_and_every_fingerprint(
    make_site: Callable[..., Path], run_of: Callable[..., RunConfig]
) -> None:
    path = make_site()
    run = run_of(path)
    plan, text = plan_of(run), review(run, path).text()
    assert f"would cost epsilon {epsilon(plan)} at delta 1e-05; spent so far 0.0 of 5" in text
    more = f"{epsilon(plan.if_colluding(2))} if 2 are, {epsilon(plan.if_broken)} if 3 are"
    assert f"holds if at most 1 of these 4 institutions are in league with the server; {more}" in text
    assert f"if that is broken, it would cost epsilon {epsilon(plan.if_broken)}; spent so far 0.0 of 20" in text
    assert epsilon(plan.if_broken) > epsilon(plan)
    for name, fingerprint in COMPARED.items():
        assert f"{name!r}: {fingerprint}" in text
    assert f"'mary': {partner_fingerprint(run.study.keys['mary'])} (this institution: read it to the others)" in text
    assert "Compare each fingerprint by telephone with that institution." in text
    told = json.loads(json.dumps(review(run, path).as_json()["shared_noise"]))
    assert (told["cost"], told["cap"], told["max_colluding"]) == (epsilon(plan.if_broken), 20.0, 1)
    assert approve_run(run, "test", path).splitlines()[1:] == review(run, path).agreed()[1:]


def test_a_local_run_is_read_as_before(tmp_path: Path, make_run: MakeRun, base_folder: Path) -> None:
    verdict = review(lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), write_site(tmp_path))
    assert "shared_noise" not in verdict.as_json()
    assert len(verdict.agreed()) == 5
    assert not [word for word in ("broken", "league", "telephone", "fingerprint") if word in verdict.text()]


def test_shared_noise_waits_for_a_person_whatever_the_policy_says(
    make_site: Callable[..., Path], run_of: Callable[..., RunConfig]
) -> None:
    path = make_site(require_approval=False)
    run, site = run_of(path), open_site(path)
    assert is_waiting(run, site)
    with pytest.raises(PolicyError, match="waits for approval"):
        decision_on(run, site).require()
    assert site.offers
    keep_offer(site.offers, run)
    assert [item["status"] for item in list_studies(path)] == ["waits for approval"]
    approve_run(run, "test", path)
    assert not is_waiting(run, site)
    assert decision_on(run, site).require() == cap_of(site.config.policy)
    assert [item["status"] for item in list_studies(path)] == ["approved"]


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing is tolerated": (
        {"tolerate_colluding": None},
        "max_colluding = 1 is refused: policy.tolerate_colluding",
    ),
    "more must be tolerated": ({"tolerate_colluding": 2}, "is refused: policy.tolerate_colluding = 2"),
    "a second cap that is too low": ({"max_epsilon_if_broken": 5.5}, "if its shared noise is broken"),
    "no second cap": ({"max_epsilon_if_broken": None}, "if its shared noise is broken"),
    "a partner who was not compared": ({"partners": {**COMPARED, "luke": ""}}, "compare it by telephone"),
    "another key of a partner": ({"partners": {**COMPARED, "luke": COMPARED["mark"]}}, COMPARED["luke"]),
    "no partners": ({"partners": {}}, "'paul' is not in [partners]"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_shared_noise_is_refused_beyond_a_limit(
    name: str, make_site: Callable[..., Path], run_of: Callable[..., RunConfig]
) -> None:
    changes, words = REFUSALS[name]
    run, path = run_of(make_site()), make_site(**changes)
    verdict = review(run, path)
    assert verdict.exit_code == PolicyError.exit_code
    assert any(words in reason for reason in verdict.policy), verdict.policy
    with pytest.raises(PolicyError):
        approve_run(run, "test", path)


def test_a_limit_on_each_study_bounds_the_first_account_alone(
    make_site: Callable[..., Path], run_of: Callable[..., RunConfig]
) -> None:
    path = make_site(max_epsilon_per_study=5.0)
    assert review(run_of(path), path).policy == ()


def test_the_ledger_is_shown_with_both_accounts(
    make_site: Callable[..., Path], run_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    path = make_site()
    run, site = run_of(path), open_site(path)
    plan, cap = plan_of(run), cap_of(site.config.policy)
    site.ledger.open_study("test", plan, cap)
    facts = {"input_sha256": "1" * 64, "run_sha256": run.sha256(), "coins": "os"}
    for number in (1, 2):
        site.ledger.reserve(AnswerKey("test", "ab" * 16, "update", number), (1, 0), cap, facts)
    first = composed_epsilon([Charge(plan, 2)], 1e-5)
    second = composed_epsilon([Charge(plan.if_broken, 2)], 1e-5)
    shown = ledger_facts(path)
    assert (shown["epsilon_spent"], shown["epsilon_spent_if_broken"]) == (first, second)
    text = ledger_text(shown)
    assert f"epsilon spent {first} of 5" in text
    assert f"if that is broken: epsilon spent {second} of 20" in text
    assert (
        f"epsilon {first} if at most 1 institutions are in league with the server, {second} if that is broken" in text
    )
    (tmp_path / "export.jsonl").write_text("".join(f"{line}\n" for line in export_lines(path)), encoding="utf-8")
    code, output, _ = run_verify(tmp_path / "export.jsonl")
    assert code == 0, output


@pytest.mark.parametrize(
    ("partners", "state", "words"),
    [
        (COMPARED, "ok", "[partners] has the keys that the run lists for luke, mark, paul"),
        (
            {**COMPARED, "luke": COMPARED["mark"]},
            "problem",
            f"study.keys: 'luke' partners.luke = '{COMPARED['mark']}', its key has the fingerprint {COMPARED['luke']}; "
            "compare it by telephone with that institution, then write it into [partners]",
        ),
        (
            {name: COMPARED[name] for name in ("luke", "mark")},
            "problem",
            f"study.keys: 'paul' is not in [partners], its key has the fingerprint {COMPARED['paul']}; compare",
        ),
    ],
)
def test_doctor_compares_the_partners_of_a_run_on_offer(
    make_site: Callable[..., Path],
    run_of: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    partners: dict[str, str],
    state: str,
    words: str,
) -> None:
    path = make_site(partners=partners)
    assert _finding(path) == ("ok", "are looked at once a run is offered in which institutions share noise")
    keep_offer(open_site(path).offers or path, run_of(path))
    found = _finding(path)
    assert found[0] == state
    assert words in found[1]


def _finding(path: Path) -> tuple[str, str]:
    [found] = [finding for finding in examine(path) if finding.subject == "partners"]
    return found.state, found.text


def test_the_status_counts_rounds_whose_share_left_and_names_held_shares(
    make_site: Callable[..., Path], run_of: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_site()
    run, site = run_of(path), open_site(path)
    cap = cap_of(site.config.policy)
    site.ledger.open_study("test", plan_of(run), cap)
    facts = {"input_sha256": "1" * 64, "run_sha256": run.sha256(), "coins": "os"}
    for number in (1, 2):
        reservation = site.ledger.reserve(AnswerKey("test", "ab" * 16, "update", number), (1, 0), cap, facts)
        site.shares.put(reservation.share_file, b"share")
        site.outbox.put(reservation.answer_file, b"envelope")
        site.ledger.seal(reservation, "2" * 64, 8)
        if number == 1:
            site.ledger.release(reservation, "3" * 64, 4, "4" * 64, 20, cap)
            site.outbox.put(reservation.sum_file, b"masked")
    told = status_facts(path)  # opens the site, which forgets what has left
    assert told["studies_open"] == {"test": {"rounds_answered": 1}}
    assert told["shares_held"] == [{"study": "test", "round": 2}]
    assert "study test, round 2: the share is held here until the members of its sum are known" in status_text(told)
    cli.pause(path)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "paused: nothing new is answered"
    assert second.startswith("the share of study test, round 2, stays here: if its sum is open, that round is void")
    site.shares.delete(reservation.share_file)
    cli.pause(path)
    assert capsys.readouterr().out.splitlines() == [first]


def test_both_numbers_are_at_the_policy_s_delta(
    make_site: Callable[..., Path], run_of: Callable[..., RunConfig]
) -> None:
    path = make_site()
    run = run_of(path)
    strict = run.model_copy(update={"privacy": run.privacy.model_copy(update={"target_delta": 1e-7})})
    plan, shared = plan_of(run), review(strict, path).shared
    assert shared
    assert plan.target_delta == 1e-5 == open_site(path).config.policy.max_delta
    assert (shared.colluding[1], shared.cost) == (epsilon(plan), epsilon(plan.if_broken))
