"""`confide client evaluate` and `confide client personalise`: the adapter, the records, the work, the files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confide.client.commands.models import Kept, find_kept
from confide.client.home.comparison import FEDERATED, PERSONALISED, compare
from confide.client.home.page import as_page, as_text
from confide.client.home.personal import folder_of, personalise, write_personalised
from confide.client.home.training import Tell
from confide.client.service.running import client_pid
from confide.client.site.installation import Site, open_site
from confide.client.training.held_out import at_home, held_out_fraction, note_split
from confide.client.training.shares import Shares, model_of, shares_at_home
from confide.common.errors import ConfideError, InputError, PolicyError
from confide.common.export.personal import is_personalised
from confide.common.model.warm_model import WarmModel, forget_models
from confide.common.privacy.coins import Coins
from confide.common.private_file import write_private

_READ = "no training here has read them"
_UNKNOWN = (
    "this run was trained before the client noted how it divides records: if [dataset] of site.toml has changed since, "
    "some of them were trained on"
)
_CONTINUED = (
    "this run went on from another adapter: through it some of them may have been trained on, and base and alone begin "
    "without it, so that federating is credited with what it knew"
)


@dataclass(frozen=True)
class Home:
    """The adapter, the records and the places that both commands work with.

    Attributes:
        kept: the finished adapter.
        site: of which the ledger is only read.
        fraction: of units that no round of its run has trained on.
        noted: False if that is taken from the present settings.
        local: folder that nothing of leaves.
    """

    kept: Kept
    site: Site
    fraction: float
    noted: bool
    local: Path

    @property
    def caution(self) -> str:
        """Words on whether the held-out records are new to every training here."""
        if self.kept.run.adapter.start_sha256:
            return _CONTINUED
        return _READ if self.noted else _UNKNOWN

    @property
    def personalised(self) -> Path:
        """The place of the personalised adapter, which may not be there."""
        return folder_of(self.local, self.kept.study, self.kept.name)


@dataclass(frozen=True)
class Evaluated:
    """The results of `evaluate`, in three forms; ``page`` is the file of the last."""

    text: str
    as_json: dict[str, Any]
    page: Path


def evaluate(path: Path, model: str, out: Path | None, tell: Tell) -> Evaluated:
    """Compare the ways to an adapter on the held-out share, and write the page.

    Args:
        path: of site.toml.
        model: names a finished adapter (`find_kept`).
        out: the page's file; None for one in local/.
        tell: gets lines about the progress.

    Raises:
        InputError: nothing was held out, no record can be used, or the page cannot be written.
        ConfideError: the client is running.
        PolicyError: the dataset is retired.
    """
    home = _home(path, model)
    page = out or home.local / f"evaluation-{home.kept.study}-{home.kept.name}.html"
    if page.is_dir():
        raise InputError(f"--out {page}: is a folder; name a file in it")
    home.local.mkdir(exist_ok=True, mode=0o700)
    if home.fraction == 0:
        raise InputError(
            f"no record was held out of {home.kept.study}/{home.kept.name} (validation_fraction = 0), so every record "
            "here was trained on and none can test it; set [dataset] validation_fraction, say 0.1, before the next run"
        )
    adapters = {FEDERATED: home.kept.folder}
    if is_personalised(home.personalised):
        adapters[PERSONALISED] = home.personalised
    with _model_and_shares(home, tell) as (warm, shares):
        _require_units(home, len(shares.validation), "held-out share", "hold more out before the next run")
        found = compare(home.kept.run, warm, shares, adapters, Coins.fresh(), tell)
    head = {
        "study": home.kept.study,
        "run": home.kept.name,
        "kind": home.kept.run.task.kind,
        "held out": f"{found.num_records} records in {found.num_units} units; {home.caution}",
    }
    write_private(page, as_page(found, head), "--out")
    return Evaluated(as_text(found, head), {**head, **found.as_json(), "page": str(page)}, page)


def make_personalised(path: Path, model: str, tell: Tell) -> Path:
    """Train a shared adapter on at home, and return the folder in local/ where it stays.

    Args:
        path: of site.toml.
        model: names a finished adapter (`find_kept`).
        tell: gets lines about the progress.

    Raises:
        InputError: no record can be used, or the folder cannot be written.
        ConfideError: the client is running.
        PolicyError: the dataset is retired.
    """
    home = _home(path, model)
    kept = home.kept
    with _model_and_shares(home, tell) as (warm, shares):
        note_split(_splits(home.site), at_home(kept.run), home.site.config.dataset)
        state = personalise(kept.run, warm, shares.training, kept.folder, Coins.fresh(), tell)
        write_personalised(home.personalised, kept.run, warm, state, home.site.config.models.dir)
    return home.personalised


def _home(path: Path, model: str) -> Home:
    site = open_site(path)
    if site.ledger.account().retired:
        raise PolicyError(
            f"dataset {site.config.dataset.id!r} is retired: nothing is trained on these people any more, at home "
            "either; delete local/personalised/, local/evaluation-*.html, local/doctor.txt and local/errors.log too if "
            "these people are to be forgotten"
        )
    kept = find_kept(path, site, model)
    state = site.config.state.dir
    if (pid := client_pid(state)) is not None and not (state / "paused").exists():
        raise ConfideError(
            f"the client runs (process {pid}), and a round could lack the memory that this takes: `confide client "
            "pause` first, and `confide client resume` afterwards; or stop it meanwhile"
        )
    fraction, noted = held_out_fraction(_splits(site), kept.run, site.config.dataset)
    return Home(kept, site, fraction, noted, path.absolute().parent / "local")


def _splits(site: Site) -> Path:
    if site.splits is None:
        raise ValueError("only a simulated site keeps no notes of its splits")
    return site.splits


@contextmanager
def _model_and_shares(home: Home, tell: Tell) -> Iterator[tuple[WarmModel, Shares]]:
    """Give the run's model and the records. The model is dropped afterwards, for its frozen numbers may be others."""
    tell("loading the base model, and trying a step of each size")
    try:
        model = model_of(home.kept.run, home.site)
        shares = shares_at_home(home.site.data, home.site.config.compute, model, home.fraction)
        _require_units(home, shares.training.num_units, "training share", "`confide client doctor` says why")
        yield model, shares
    finally:
        forget_models()


def _require_units(home: Home, count: int, share: str, remedy: str) -> None:
    if not count:
        data = home.site.config.dataset.path
        raise InputError(f"{data}: the {share} holds no record that this run could use; {remedy}")
