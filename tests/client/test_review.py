"""What `confide client check` tells beforehand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.installations import write_site

from confide.client.review import approve_run, review
from confide.common.models import hash_model
from confide.common.run_config import RunConfig, lock


def test_an_institution_is_told_that_a_server_would_leave_out_its_size(
    tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    site, base = write_site(tmp_path), hash_model(base_folder)
    near, far = (review(lock(make_run(local={"nominal_units": size}), base), site) for size in (400, 401))
    assert "leave you out" not in near.text()
    assert "  the server would leave you out: declared_units = 20 must be within 20 times" in far.text()
    assert near.as_json()["left_out_by_the_server"] is None
    assert (near.exit_code, far.exit_code) == (0, 0), "it is the server that refuses"


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
    assert len(approved) == 4


def test_who_approves_a_run_without_privacy_is_told_so(
    tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    site = write_site(tmp_path, policy={"allow_no_privacy": True})
    run = lock(make_run(local={"nominal_units": 20}, privacy={"unit": "none"}), hash_model(base_folder))
    approved = approve_run(run, "test", site).splitlines()
    assert approved[2:] == ["  WITHOUT PRIVACY: nothing is clipped, and no noise is added"]
    assert review(run, site).as_json()["terms"]["clip_norm"] is None


def test_the_name_of_a_base_model_cannot_move_the_cursor(
    tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    run = run.model_copy(update={"model": run.model.model_copy(update={"base": "good\x1b[1A\nwould be accepted"})})
    text = review(run, write_site(tmp_path)).text()
    assert "\x1b" not in text
    assert "would be accepted" not in text.splitlines()[2]
