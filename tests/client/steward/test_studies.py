"""What `confide client studies` lists."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from support.installations import Asking, write_site

from confide.client.answers.proposed_runs import keep_offer
from confide.client.site.installation import open_site
from confide.client.steward.studies import list_studies
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model

MakeRun = Callable[..., RunConfig]


def test_of_two_runs_of_a_study_only_the_one_that_was_opened_is_called_open(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    site, base = write_site(tmp_path), hash_model(base_folder)
    first, second, third = (
        lock(make_run(local={"nominal_units": 20, "sampling_probability": share}, task={"max_length": size}), base)
        for size, share in ((64, 0.1), (32, 0.1), (64, 0.2))
    )
    unlocked = make_run(privacy={"noise_multiplier": None})
    Asking(first, partial(open_site, site)).offer()
    for run in (second, third, unlocked):
        keep_offer(tmp_path / "state" / "offers", run)
    told = {study["run_sha256"]: study["status"] for study in list_studies(site)}
    assert told[first.sha256()] == "open, this run needs no approval"
    for run in (third, unlocked):
        assert told[run.sha256()] == "needs no approval; not opened, another run of this study is"
    Asking(first, partial(open_site, site)).update()
    told = {study["run_sha256"]: (study["status"], study["steps"]) for study in list_studies(site)}
    assert told[first.sha256()] == ("open, this run needs no approval", "1 of 40 steps reserved")
    assert told[second.sha256()] == ("needs no approval; not opened, another run of this study is", "nothing reserved")
