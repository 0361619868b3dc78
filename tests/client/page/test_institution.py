"""The institution's page does what the commands do, with the same rows, and nothing that they would not do."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.installations import Asking, kinds, write_site
from support.ledgers import PLAN
from support.pages import Local, local_institution

from confide.client.answers.proposed_runs import keep_offer
from confide.client.page.overview import state_of
from confide.client.page.words import _KINDS, task_words
from confide.client.privacy.account import AnswerKey
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import Site, open_site
from confide.client.steward.approval import approve_run, plan_here
from confide.client.steward.budget import budgets
from confide.client.steward.studies import list_studies
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model

MakeRun = Callable[..., RunConfig]
TICKS = {"known": "yes", "cost": "yes"}


@pytest.fixture(scope="module")
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"nominal_units": 20}, federation={"num_rounds": 3}), hash_model(base_folder))


@pytest.fixture
def path(tmp_path: Path, run: RunConfig) -> Path:
    """A site at which a run waits for a person."""
    path = write_site(tmp_path / "here", policy={"require_approval": True, "max_epsilon": 20.0})
    keep_offer(_open(path).offers, run)  # type: ignore[arg-type]
    return path


@pytest.fixture
def steward(path: Path) -> Local:
    return local_institution(path)


def _open(path: Path) -> Site:
    return open_site(path)


def _approve(run: RunConfig, **changes: str) -> tuple[str, dict[str, str]]:
    form = {**TICKS, "hash": run.sha256()[:20], **changes}
    return f"requests/{run.sha256()}/approve", {name: value for name, value in form.items() if value}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a ledger without what chance or the clock decides: salt, time, the hash of the row before."""
    drawn = ("salt", "time", "previous", "people")
    return [{key: value for key, value in row.items() if key not in drawn} for row, _ in _open(path).ledger.rows()]


def test_approving_by_page_writes_the_row_of_the_command(
    tmp_path: Path, path: Path, run: RunConfig, steward: Local
) -> None:
    other = tmp_path / "other"
    shutil.copytree(path.parent, other)
    answer = steward.post(*_approve(run))
    assert "approved" in answer.text
    approve_run(run, "test", other / "site.toml")
    assert [row["kind"] for row in _rows(path)] == ["dataset", "approve"]
    assert _rows(path) == _rows(other / "site.toml")
    assert "You have approved this run" in steward.get(f"requests/{run.sha256()}").text


@pytest.mark.parametrize(
    "changes",
    [
        {"known": ""},
        {"cost": ""},
        {"cost": "no"},
        {"hash": ""},
        {"hash": "0000"},
        {"hash": "deadbeef"},
        {"form": "guess"},
    ],
)
def test_nothing_is_approved_without_every_tick_and_the_hash(
    path: Path, run: RunConfig, steward: Local, changes: dict[str, str]
) -> None:
    assert steward.post(*_approve(run, **changes)).status_code in (400, 403)
    assert steward.post(*_approve(run, hash=run.sha256()[:19])).status_code == 400, (
        "a server could grind fewer than 80 bits"
    )
    assert _rows(path) == []


def test_the_budget_before_and_after_is_told_in_a_sentence(path: Path, run: RunConfig, steward: Local) -> None:
    """A bar alone says nothing to whoever sees it for the first time."""
    found = budgets(run, _open(path))
    assert found
    text = re.sub("<[^>]+>| +", " ", steward.get(f"requests/{run.sha256()}").text)
    text = " ".join(text.split())
    first = found.first
    assert f"your institution allows epsilon {first.cap:g}. Nothing of it is spent yet. With this study" in text
    assert f"With this study it would be {first.after:g}, and {first.left:g} would be left for everything" in text


def test_the_hash_is_shown_in_groups_and_may_be_typed_so(path: Path, run: RunConfig, steward: Local) -> None:
    start = run.sha256()[:20]
    groups = [start[index : index + 4] for index in range(0, 20, 4)]
    assert f"<code>{'-'.join(groups)}</code>" in steward.get(f"requests/{run.sha256()}").text
    assert steward.post(*_approve(run, hash=" ".join(groups).upper() + "-")).status_code == 200
    assert _rows(path)[-1]["kind"] == "approve"


def test_the_page_approves_nothing_that_the_command_refuses(tmp_path: Path, run: RunConfig) -> None:
    """The form is not shown; whoever sends it nevertheless is refused by the same decision."""
    reasons = {"max_rounds": 2, "max_epsilon": 0.5, "studies": ["another"]}
    for name, limit in reasons.items():
        path = write_site(tmp_path / name, policy={"require_approval": True, name: limit})
        keep_offer(_open(path).offers, run)  # type: ignore[arg-type]
        steward = local_institution(path)
        shown = steward.get(f"requests/{run.sha256()}").text
        assert "cannot be approved as it stands" in shown
        assert "Approve this run" not in shown
        assert steward.post(*_approve(run)).status_code == 400
        assert _rows(path) == []


def test_a_run_that_was_declined_is_declined_until_it_is_approved(path: Path, run: RunConfig, steward: Local) -> None:
    asking = Asking(run, partial(open_site, path))
    assert kinds(asking.offer()) == ["waiting"]
    assert "declined" in steward.post(f"requests/{run.sha256()}/decline", {}).text
    assert kinds(asking.offer()) == ["declined"]
    assert list_studies(path)[0]["status"] == "declined"
    assert "Nothing waits for your decision" in steward.get().text
    assert "<h3>Declined</h3>" in steward.get().text
    assert _rows(path) == [], "a no costs nothing"
    assert steward.post(*_approve(run)).status_code == 200
    assert kinds(asking.offer()) == ["accepted"]
    assert "<h3>Declined</h3>" not in steward.get().text
    assert steward.post(f"requests/{run.sha256()}/decline", {}).status_code == 400, "an approval stays"


def test_pausing_and_ending_a_study_by_page_are_those_of_the_commands(path: Path, steward: Local) -> None:
    site, paused = _open(path), path.parent / "state" / "paused"
    steward.post("pause", {})
    assert paused.exists()
    assert "Paused" in steward.get().text
    steward.post("resume", {})
    assert not paused.exists()
    site.ledger.open_study("test", PLAN, cap_of(site.config.policy))
    assert steward.post("studies/test/close", {}).status_code == 400, "the box was not ticked"
    assert not site.ledger.account().studies["test"].closed
    assert "is closed" in steward.post("studies/test/close", {"sure": "yes"}).text
    assert site.ledger.account().studies["test"].closed


def test_a_page_says_from_which_adapter_a_run_goes_on_and_what_the_head_weighs(
    path: Path, run: RunConfig, steward: Local
) -> None:
    """As `confide client check` does: who approves on the page is shown no less."""
    start = run.model_copy(update={"adapter": run.adapter.model_copy(update={"start_sha256": "ab12" * 16})})
    keep_offer(_open(path).offers, start)  # type: ignore[arg-type]
    plain, other = (steward.get(f"requests/{each.sha256()}").text for each in (run, start))
    assert "goes on from a finished adapter (sha256 <code>ab12ab12ab12</code>)" in other
    assert "goes on from" not in plain
    assert f"the head weighs {run.privacy.head_weight:g} times" in plain


def test_an_approved_run_of_an_ended_study_is_not_said_to_be_answered(
    path: Path, run: RunConfig, steward: Local
) -> None:
    steward.post(*_approve(run))
    site = _open(path)
    site.ledger.open_study("test", plan_here(run, site), cap_of(site.config.policy))
    assert "Your client answers it by itself" in steward.get(f"requests/{run.sha256()}").text
    steward.post("studies/test/close", {"sure": "yes"})
    shown = steward.get(f"requests/{run.sha256()}").text
    assert "Your client answers it by itself" not in shown
    assert "You have approved this run, but your client answers nothing more for it" in shown
    assert "is closed" in shown


def test_a_run_that_cannot_be_approved_does_not_wait_for_a_decision(path: Path, run: RunConfig, steward: Local) -> None:
    site = _open(path)
    refused = run.model_copy(update={"study": run.study.model_copy(update={"name": "elsewhere"})})
    unlocked = run.model_copy(update={"privacy": run.privacy.model_copy(update={"noise_multiplier": None})})
    for each in (refused, unlocked):
        keep_offer(site.offers, each)  # type: ignore[arg-type]
    shown = steward.get().text
    assert "1 request waits for your decision" in shown
    assert "2 requests cannot be approved as they stand" in shown
    site.ledger.open_study("test", PLAN, cap_of(site.config.policy))
    steward.post("studies/test/close", {"sure": "yes"})
    shown = steward.get().text
    assert "Nothing waits for your decision" in shown
    assert "3 requests cannot be approved as they stand" in shown
    assert f"requests/{run.sha256()}" in shown, "a person may read it, and decline it"


def test_what_left_and_the_budget_are_told_as_the_ledger_has_them(path: Path, steward: Local) -> None:
    site = _open(path)
    cap = cap_of(site.config.policy)
    site.ledger.open_study("test", PLAN, cap)
    facts = {"input_sha256": "i", "run_sha256": "r", "coins": "test"}
    reservation = site.ledger.reserve(AnswerKey("test", "a", "update", 1), (1, 0), cap, facts)
    site.ledger.seal(reservation, "ab" * 32, 12_345)
    home, spent = steward.get().text, site.ledger.account().epsilon_spent(cap.max_delta)
    assert f"spent {spent:g}" in re.sub(r"\s+", " ", home)
    assert "round 1, update, 12,345 bytes" in home
    assert "ready to leave, without a receipt yet: count it as left" in steward.get("left").text
    assert "abababababababab" in steward.get("left").text


def test_words_of_a_server_are_shown_as_text(path: Path, run: RunConfig, steward: Local) -> None:
    evil = "<img src=x onerror=alert(1)>\x1b[2J"
    study = run.study.model_copy(update={"institutions": (evil, "st-mary")})
    changes = {"model": run.model.model_copy(update={"base": evil}), "study": study}
    hostile = run.model_copy(update=changes)
    keep_offer(_open(path).offers, hostile)  # type: ignore[arg-type]
    shown = steward.get(f"requests/{hostile.sha256()}").text
    assert "&lt;img src=x onerror=alert(1)&gt;\\x1b[2J" in shown
    assert "<img" not in shown
    assert "\x1b" not in shown


def test_a_page_names_no_other_host_and_holds_no_script_or_style_of_its_own(run: RunConfig, steward: Local) -> None:
    for text in (steward.get(rest).text for rest in ("", f"requests/{run.sha256()}", "left", "partners")):
        assert re.findall(r"https?://", text) == []
        assert re.findall(r"<script(?! src=)|<style|\sstyle=|\son\w+=", text) == []


def test_a_request_that_is_gone_is_told(steward: Local) -> None:
    answer = steward.get(f"requests/{'0' * 64}")
    assert (answer.status_code, "is not kept here any more" in answer.text) == (400, True)


def test_the_state_of_the_page_changes_with_the_ledger_the_offers_and_a_pause(path: Path, run: RunConfig) -> None:
    site = _open(path)
    states = [state_of(path, site.config.state.dir)]
    site.ledger.approve("test", run.sha256(), PLAN, cap_of(site.config.policy))
    states.append(state_of(path, site.config.state.dir))
    keep_offer(site.offers, run.model_copy(update={"study": run.study.model_copy(update={"name": "small"})}))  # type: ignore[arg-type]
    states.append(state_of(path, site.config.state.dir))
    (site.config.state.dir / "paused").touch()
    states.append(state_of(path, site.config.state.dir))
    site.shares.put("held", b"a share")
    states.append(state_of(path, site.config.state.dir))
    assert len(set(states)) == 5
    assert state_of(path, site.config.state.dir) == states[-1], "and not by itself"


def test_every_kind_of_task_has_words(run: RunConfig) -> None:
    from typing import get_args

    from confide.common.tasks import TaskSettings

    union = get_args(get_args(TaskSettings)[0])
    tags = {each.tag for kind in union for each in get_args(kind)[1:]}
    assert set(_KINDS) == tags
    assert task_words(run.task) == "put a text into one of these classes: 'negative', 'positive'"


def test_an_edit_of_site_toml_shows_on_an_open_page(path: Path, steward: Local) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("st-mary", "st-luke"), encoding="utf-8")
    page = steward.get().text
    assert ("st-mary" in page, "<b>st-luke</b>" in page, "<h1>st-luke</h1>" in page) == (False, True, True)
