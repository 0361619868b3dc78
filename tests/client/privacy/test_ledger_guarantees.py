"""The guarantee of ledger and release, sentence by sentence, on the product as it is.

`test_planted_bugs` runs the same checks on a product with a bug in it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ledger_guarantees as checks
from support.installations import Asking, kinds, write_site
from support.sites import make_records

from confide.client.answers import round as round_module
from confide.client.service.process import _Answers
from confide.client.service.running import Status
from confide.client.site.installation import open_site
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model

MakeRun = Callable[..., RunConfig]


def test_a_crash_refunds_nothing(tmp_path: Path) -> None:
    checks.check_a_crash_refunds_nothing(tmp_path)


def test_a_round_has_one_retry_at_most(tmp_path: Path) -> None:
    checks.check_a_round_has_one_retry_at_most(tmp_path)


def test_a_lowered_cap_holds_from_the_next_charge(tmp_path: Path) -> None:
    checks.check_a_lowered_cap_holds_from_the_next_charge(tmp_path)


def test_an_edited_row_is_refused(tmp_path: Path) -> None:
    checks.check_an_edited_row_is_refused(tmp_path)


def test_an_old_ledger_is_refused(tmp_path: Path) -> None:
    checks.check_an_old_ledger_is_refused(tmp_path)


def test_the_charge_comes_before_the_computation(tmp_path: Path) -> None:
    checks.check_the_charge_comes_before_the_computation(tmp_path)


def test_a_resend_is_identical_and_free(tmp_path: Path) -> None:
    checks.check_a_resend_is_identical_and_free(tmp_path)


def test_a_sealed_answer_is_never_lost(tmp_path: Path) -> None:
    checks.check_a_sealed_answer_is_never_lost(tmp_path)


def test_an_answer_without_a_seal_is_never_sent(tmp_path: Path) -> None:
    checks.check_an_answer_without_a_seal_is_never_sent(tmp_path)


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    local = {"sampling_probability": 1.0, "nominal_units": 20}
    return lock(make_run(local=local, federation={"num_rounds": 2}), hash_model(base_folder))


def test_no_server_lowers_the_noise_in_mid_study(tmp_path: Path, run: RunConfig) -> None:
    checks.check_no_server_lowers_the_noise_in_mid_study(tmp_path, run)


def test_a_retry_draws_everything_anew(tmp_path: Path, run: RunConfig) -> None:
    checks.check_a_retry_draws_everything_anew(tmp_path, run)


def test_a_site_file_that_names_another_dataset_is_answered_from_that_dataset(
    tmp_path: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one dataset's people would be trained on, and another's ledger charged."""
    path, counted, train = write_site(tmp_path), list[int](), round_module.train

    def counting(work: Any, model: Any, units: Any, coins: Any) -> Any:
        counted.append(units.num_units)
        return train(work, model, units, coins)

    monkeypatch.setattr(round_module, "train", counting)
    asking = Asking(run, _Answers(path, open_site(path), Status(tmp_path / "state"))._current)
    assert kinds(asking.update(1)) == ["update"]
    others = [{**record, "text": f"{record['text']} of another"} for record in make_records(5)]
    write_site(tmp_path, others, dataset={"id": "others", "validation_fraction": 0.0})
    assert kinds(asking.update(2)) == ["update"]
    assert counted[1] == 5
