"""The page says of this policy and this run what leaves, and nothing that is true of others alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.installations import write_site
from support.ledgers import PLAN
from support.pages import local_institution

from confide.client.answers.proposed_runs import keep_offer
from confide.client.privacy.account import AnswerKey
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import open_site
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model

MakeRun = Callable[..., RunConfig]


def _request(path: Path, make_run: MakeRun, base: Path, **sections: dict[str, Any]) -> str:
    run = lock(make_run(local={"nominal_units": 20}, **sections), hash_model(base))
    keep_offer(open_site(path).offers, run)  # type: ignore[arg-type]
    return " ".join(local_institution(path).get(f"requests/{run.sha256()}").text.split())


def _left(path: Path) -> str:
    return " ".join(local_institution(path).get("left").text.split())


@pytest.mark.parametrize(
    ("policy", "every", "said"),
    [
        ("private", 2, "Every 2 rounds also two noised counts"),
        pytest.param("private", 1, "Every round also two noised counts", marks=pytest.mark.waits),
        ("private", None, ""),
        pytest.param("private", 9, "", marks=pytest.mark.waits),
        ("none", 1, "asks for counts on your held-out records too. Your policy shares none"),
    ],
)
def test_a_request_names_validation_counts_where_they_leave(
    tmp_path: Path, make_run: MakeRun, base_folder: Path, policy: str, every: int | None, said: str
) -> None:
    path = write_site(tmp_path, policy={"share_metrics": policy})
    evaluation = {} if every is None else {"evaluation": {"validation_every": every}}
    shown = _request(path, make_run, base_folder, federation={"num_rounds": 4}, **evaluation)
    assert said in shown
    assert ("also two noised counts" in shown) == said.startswith("Every")
    assert ("shares none" in shown) == ("shares none" in said)


def test_a_request_without_privacy_has_no_noised_counts(tmp_path: Path, make_run: MakeRun, base_folder: Path) -> None:
    path = write_site(tmp_path, policy={"share_metrics": "private", "allow_no_privacy": True})
    shown = _request(path, make_run, base_folder, privacy={"unit": "none"})
    assert "<strong>as they are</strong>" in shown
    assert "counts" not in shown.partition("What leaves</th>")[2].partition("</tr>")[0]


def test_what_left_is_said_of_this_policy_and_this_ledger(tmp_path: Path) -> None:
    path = write_site(tmp_path / "none")
    assert "No record, text, count or score of them leaves." in _left(path)
    assert "noise protects each of them" in _left(path)
    shared = write_site(tmp_path / "private", policy={"share_metrics": "private"})
    assert "two noised counts" in _left(shared)
    assert "count or score of them leaves" not in _left(shared)


def test_counts_that_left_are_told_though_the_policy_has_changed(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    site, facts = open_site(path), {"input_sha256": "i", "run_sha256": "r", "coins": "test"}
    cap = cap_of(site.config.policy)
    site.ledger.open_study("test", PLAN, cap)
    reservation = site.ledger.reserve(AnswerKey("test", "a", "validation", 1), (0, 1), cap, facts)
    site.ledger.seal(reservation, "ab" * 32, 99)
    assert "two noised counts" in _left(path)


def test_answers_without_privacy_are_not_called_protected(tmp_path: Path) -> None:
    path = write_site(tmp_path, policy={"allow_no_privacy": True})
    site = open_site(path)
    site.ledger.open_study("test", None, cap_of(site.config.policy))
    assert "noise protects each of them" not in _left(path)
    assert "left as they were made, and may reveal records" in _left(path)
