"""What `confide client check` tells beforehand."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
from support.installations import Asking, kinds, write_records, write_site
from support.kinds import KINDS, of_kind, records_of_kind
from support.sites import make_records

from confide.client.answers.proposed_runs import keep_offer
from confide.client.site.installation import open_site
from confide.client.steward.approval import approve_run, review
from confide.client.steward.budget import budgets
from confide.client.steward.offers import offered_run
from confide.client.steward.studies import list_studies
from confide.common.aloud import hash_start
from confide.common.cli import main
from confide.common.config.run import RunConfig, lock, make_plan
from confide.common.errors import InputError
from confide.common.model.base_models import hash_model
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan

MakeRun = Callable[..., RunConfig]
CAP = Cap(100.0, 1e-3)


def test_an_institution_is_told_that_a_server_would_leave_out_its_size(
    tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    site, base = write_site(tmp_path), hash_model(base_folder)
    near, far = (review(lock(make_run(local={"nominal_units": size}), base), site) for size in (400, 401))
    assert "leave you out" not in near.text()
    assert "  the server would leave you out: declared_units = 20 must be within 20 times" in far.text()
    assert near.as_json()["left_out_by_the_server"] is None
    assert (near.exit_code, far.exit_code) == (0, 0), "it is the server that refuses"


# Enough lines


CODES = [{**record, "label": number % 2} for number, record in enumerate(make_records(40))]


def _call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["confide", *words])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    output, errors = capsys.readouterr()
    return int(stopped.value.code or 0), output + errors


def _write_run(run: RunConfig, folder: Path) -> str:
    (folder / "run.toml").write_text(tomli_w.dumps(json.loads(run.model_dump_json(exclude_none=True))))
    return str(folder / "run.toml")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({}, "label 0 is not one of"),
        ({"nought": "negative"}, "label 0 is not one of"),
        ({"0": "Positive"}, "label 'Positive' is not one of"),
    ],
)
def test_check_and_approve_refuse_a_run_that_could_use_too_few_lines(
    tmp_path: Path,
    make_run: MakeRun,
    base_folder: Path,
    labels: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = write_site(tmp_path, CODES, dataset={"labels": labels}, policy={"require_approval": True})
    run = _write_run(lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), tmp_path)
    for words in (("check", run), ("approve", "test", "--run", run)):
        code, text = _call(monkeypatch, capsys, "client", *words, "--site", str(site))
        assert code == 1
        assert "0 of 40 lines (0 %), dataset.min_usable_fraction = 0.5; most often (20 lines): " in text
        assert reason in text
    assert not open_site(site).ledger.account().approved


def test_codes_that_are_mapped_or_enough_others_are_no_reason_to_refuse(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    mapped = write_site(tmp_path / "a", CODES, dataset={"labels": {"0": "negative", "1": "positive"}})
    half = write_site(tmp_path / "b", [*CODES, *make_records(40)])
    less = [*CODES, *make_records(39)]
    lower = write_site(tmp_path / "c", less, dataset={"min_usable_fraction": 0.4})
    assert [review(run, site).exit_code for site in (mapped, half, lower)] == [0, 0, 0]
    below = review(run, write_site(tmp_path / "d", less))
    assert below.exit_code == 1
    assert not below.as_json()["accepted"]
    assert "39 of 79 lines (49 %)" in below.as_json()["refused_by_data"]


def test_a_reason_that_few_lines_have_in_common_is_not_quoted(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    """Where a column of texts is taken for the labels, each reason would quote a person."""
    notes = [{**record, "label": f"Jane Doe {number}"} for number, record in enumerate(make_records(40))]
    verdict = review(lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), write_site(tmp_path, notes))
    assert verdict.exit_code == 1
    assert "Jane" not in verdict.text()


def test_no_answer_to_a_server_depends_on_how_many_lines_can_be_used(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    """Its labels could count classes otherwise. A person's commands refuse; an approved run goes on."""
    answers = []
    for name, records in (("none", CODES), ("all", make_records(40))):
        site = write_site(tmp_path / name, records, policy={"studies": ["test"]})
        run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
        asking = Asking(run, partial(open_site, site))
        answers.append([kinds(asking.offer()), kinds(asking.update())])
    assert answers == [[["accepted"], ["update"]]] * 2


def test_joining_refuses_where_an_approved_run_could_use_too_few_lines(
    tmp_path: Path,
    make_run: MakeRun,
    base_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = write_site(tmp_path, policy={"require_approval": True})
    approve_run(lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), "test", site)
    write_records(tmp_path / "notes.jsonl", CODES)
    words = ("client", "join", "fl.example.org:8443", "--site", str(site))
    code, text = _call(monkeypatch, capsys, *words)
    assert (code, "study test could use 0 of 40 lines" in text) == (1, True)
    assert not list(tmp_path.glob("join-*.json"))
    assert _call(monkeypatch, capsys, *words[:3], "--new-keys", *words[3:])[0] == 0, "keys are about no data"
    open_site(site).ledger.open_study("test", make_plan(make_run(), 20), CAP)
    open_site(site).ledger.close("test")
    assert _call(monkeypatch, capsys, *words)[0] == 0, "a study that is closed spends nothing any more"


# Of a kind: columns of the wrong shape, and words of the reason.
MISSHAPEN: dict[str, tuple[dict[str, Any], str]] = {
    "text-classification": ({"label": ["positive"]}, "label ['positive'] is not one of"),
    "scoring": ({"score": "high"}, "score 'high' is no number from -4 to 4"),
    "token-classification": ({"tags": ["O"]}, "tags (of 1) must be a list with one tag for each"),
    "relation-classification": ({"text": "the film was good"}, "text has <e1> 0 times"),
    "question-answering": ({"answers": ["good"]}, "answers is ['good'], must be an object with the lists"),
    "ranking": ({"relevance": 2}, "relevance (no list) must be a list with a number for each"),
    "multi-label-classification": ({"labels": "good"}, "labels is 'good', must be a list of labels"),
    "causal-lm": ({"messages": "the film"}, "messages is 'the film', must be a list of messages"),
    "seq2seq": ({"target": ["good"]}, "target is a list"),
    "preference": ({"chosen": [{"role": "assistant", "content": "good"}]}, "prompt and chosen must both be texts"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_check_takes_good_records_of_a_kind_and_tells_of_misshapen_ones(
    tmp_path: Path, make_run: MakeRun, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = of_kind(make_run(local={"nominal_units": 20}, privacy={"unit": "none"}), kind)  # costs are not looked at here
    file, records = _write_run(lock(run, hash_model(Path(run.model.base))), tmp_path), records_of_kind(kind, 20)
    change, reason = MISSHAPEN[kind]
    told = []
    for name, rows in (("good", records), ("bad", [{**records[0], **change}] * 20)):
        sections = {"dataset": {"min_usable_fraction": 1.0}, "policy": {"allow_no_privacy": True}}
        site = write_site(tmp_path / name, rows, **sections)
        told.append(_call(monkeypatch, capsys, "client", "check", file, "--site", str(site)))
    (code, text), (refused, why) = told
    assert (code, "would be accepted" in text) == (0, True), text
    assert (refused, "0 of 20 lines (0 %)" in why, f"most often (20 lines): {reason}" in why) == (1, True, True), why


# The hash that was told


def test_approve_compares_the_hash_that_was_told_with_the_run_of_the_file(
    tmp_path: Path,
    make_run: MakeRun,
    base_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = write_site(tmp_path, policy={"require_approval": True})
    run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    words = ("client", "approve", "test", "--site", str(site), "--run", _write_run(run, tmp_path), "--sha256")
    code, text = _call(monkeypatch, capsys, *words, "deadbeef")
    assert (code, "deadbeef" in text, run.sha256() in text) == (2, True, True)
    assert not open_site(site).ledger.account().approved
    told = f" {run.sha256()[:4].upper()} {run.sha256()[4:12]}"
    code, text = _call(monkeypatch, capsys, *words, told)
    assert (code, "an attacker would recognise at most" in text) == (0, True)
    assert open_site(site).ledger.account().approved == {("test", run.sha256())}


def test_blanks_and_capitals_do_not_matter_in_the_hash_of_an_offered_run(tmp_path: Path, make_run: MakeRun) -> None:
    site, runs = write_site(tmp_path), [make_run(local={"nominal_units": size}) for size in (20, 21)]
    for run in runs:
        keep_offer(tmp_path / "state" / "offers", run)
    for run in runs:
        assert offered_run(site, "test", f"{run.sha256()[:4].upper()} {run.sha256()[4:]}").sha256() == run.sha256()
    with pytest.raises(InputError, match=f"--sha256 xyz: no run of study 'test' .*{runs[0].sha256()}"):
        offered_run(site, "test", "XYZ")


def test_a_study_that_was_not_offered_is_told_with_those_that_were(tmp_path: Path, make_run: MakeRun) -> None:
    site, told = write_site(tmp_path), "no run of study 'tset' was offered here"
    with pytest.raises(InputError, match=f"^{told}; name its file with --run"):
        offered_run(site, "tset", "")
    keep_offer(tmp_path / "state" / "offers", make_run())
    with pytest.raises(InputError, match=f"^{told}, but runs of 'test' were; name"):
        offered_run(site, "tset", "")


# A study without steps


def test_a_study_whose_steps_are_spent_is_refused_beforehand(
    tmp_path: Path,
    make_run: MakeRun,
    base_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = write_site(tmp_path)
    run = lock(make_run(local={"nominal_units": 20}, federation={"num_rounds": 2}), hash_model(base_folder))
    asking = Asking(run, partial(open_site, site))
    assert [kinds(asking.offer()), kinds(asking.update(1))] == [["accepted"], ["update"]]
    file = _write_run(run, tmp_path)
    assert _call(monkeypatch, capsys, "client", "check", file, "--site", str(site))[0] == 0
    assert kinds(asking.update(2)) == ["update"]
    for words in (("check", file), ("approve", "test", "--run", file)):
        code, text = _call(monkeypatch, capsys, "client", *words, "--site", str(site))
        assert (code, "all 2 steps of study test are spent" in text) == (4, True)
    assert kinds(asking.offer()) == ["accepted"], "its own run may come back for what was sealed"
    assert kinds(asking.update(2)) == ["update"]
    assert kinds(asking.offer(lineage="cd" * 16)) == ["declined"]
    assert list_studies(site)[0]["steps"] == "2 of 2 steps reserved"
    _, text = _call(monkeypatch, capsys, "client", "studies", "--site", str(site))
    assert text == f"test: open, this run needs no approval, run {hash_start(run.sha256())}, 2 of 2 steps reserved\n"


def test_the_error_for_a_file_of_shared_noise_says_where_its_members_are(
    tmp_path: Path, make_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    sections: dict[str, dict[str, Any]] = {
        "federation": {"aggregation": "secure-sum", "weights": "declared"},
        "local": {"steps": 1, "nominal_units": 20},
    }
    site, file = write_site(tmp_path), _write_run(make_run(**sections), tmp_path)
    for words in (("check", file), ("approve", "test", "--run", file)):
        code, text = _call(monkeypatch, capsys, "client", *words, "--site", str(site))
        assert (code, "sees the offered run with `confide client page`" in text) == (2, True), text


# What is agreed to


def test_a_person_is_told_what_else_is_agreed_to(
    tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    """The server wrote all of it, and every one of them moves what a round may show, or how finely a clock tells it."""
    site, base = write_site(tmp_path), hash_model(base_folder)
    sections: dict[str, dict[str, Any]] = {
        "federation": {"num_rounds": 6, "release_seconds": 7.5},
        "local": {"steps": 3, "nominal_units": 20},
        "privacy": {"clip_norm": 0.25, "clipping": "abadi", "head_weight": 0.75, "noise_multiplier": 4.0},
    }
    run = lock(make_run(**sections), base)
    begun = run.adapter.model_copy(update={"start_from": "there", "start_sha256": "5" * 64})
    going_on = review(run.model_copy(update={"adapter": begun}), site)
    assert going_on.text().splitlines()[1].endswith("7.5 s; goes on from a finished adapter (sha256 555555555555)")
    assert going_on.as_json()["terms"]["start_sha256"] == "5" * 64
    told = [
        f"  trains base model {str(base_folder)!r} (sha256 {base[:12]}); rounds: 6, steps a round: 3; "
        "answers leave at multiples of 7.5 s",
        "  one record moves a step by at most clip norm 0.25 (abadi clipping), in which the head weighs 0.75 times",
    ]
    assert review(run, site).text().splitlines()[1:3] == told
    assert review(run, site).as_json()["terms"] == {
        "base_model": str(base_folder),
        "base_model_sha256": base,
        "rounds": 6,
        "steps_a_round": 3,
        "release_seconds": 7.5,
        "unit": "record",
        "clip_norm": 0.25,
        "clipping": "abadi",
        "head_weight": 0.75,
    }
    approved = approve_run(run, "test", site).splitlines()
    assert approved[0].endswith(": approved")
    assert approved[1:3] == told
    assert "would cost epsilon" in approved[3]
    assert "an attacker would recognise at most" in approved[4]
    assert len(approved) == 5


def test_who_approves_a_run_without_privacy_is_told_so(
    tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    site = write_site(tmp_path, policy={"allow_no_privacy": True})
    run = lock(make_run(local={"nominal_units": 20}, privacy={"unit": "none"}), hash_model(base_folder))
    approved = approve_run(run, "test", site).splitlines()
    assert approved[2:] == ["  WITHOUT PRIVACY: no person's part is clipped, and no noise is added"]
    assert review(run, site).as_json()["terms"]["clip_norm"] is None


def test_the_name_of_a_base_model_cannot_move_the_cursor(
    tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    run = run.model_copy(update={"model": run.model.model_copy(update={"base": "good\x1b[1A\nwould be accepted"})})
    text = review(run, write_site(tmp_path)).text()
    assert "\x1b" not in text
    assert "would be accepted" not in text.splitlines()[2]


def test_every_epsilon_that_a_person_reads_is_at_the_policy_s_delta(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    """The policy decides there and the ledger counts there, whatever delta a run names."""
    path, run = write_site(tmp_path), lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    strict = run.model_copy(update={"privacy": run.privacy.model_copy(update={"target_delta": 1e-7})})
    plan = make_plan(strict, 20)
    assert isinstance(plan, PrivacyPlan)
    verdict, counted = review(strict, path), budgets(strict, open_site(path))
    assert counted
    assert verdict.cost == counted.first.after == epsilon(replace(plan, target_delta=CAP.max_delta)) < epsilon(plan)
    assert f"would cost epsilon {verdict.cost} at delta {CAP.max_delta:g}" in verdict.text()


def test_a_base_beside_the_run_is_asked_whether_it_fits(
    tmp_path: Path, make_run: MakeRun, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    beside = run.model_copy(update={"model": run.model.model_copy(update={"base": "near"})})
    fit = lambda run, base, compute: SimpleNamespace(problem=lambda name: f"{base} is large")  # noqa: E731
    monkeypatch.setattr("confide.common.model.memory.fit_of", fit)
    assert review(beside.placed({"near": str(base_folder)}), write_site(tmp_path)).room == f"{base_folder} is large"
