"""An institution with a finished adapter of a run that its ledger has reserved for, of any kind of task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.cards import make_card
from support.installations import LINEAGE, write_site
from support.kinds import of_kind
from support.sites import random_state
from support.speed import CPU

from confide.client.answers.agreement import plan_of
from confide.client.answers.finished import store_adapter
from confide.client.privacy.account import AnswerKey
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import open_site
from confide.client.training.held_out import in_rounds, note_split
from confide.common.config.run import RunConfig, lock
from confide.common.export.write import export_adapter
from confide.common.model.base_models import find_model, hash_model
from confide.common.model.warm_model import warm_model

NAME = f"test/{LINEAGE[:12]}"


@dataclass(frozen=True)
class KeptSite:
    """Its site.toml, the run, and the folder of the adapter."""

    path: Path
    run: RunConfig

    @property
    def folder(self) -> Path:
        return self.path.parent / "models" / NAME

    @property
    def personalised(self) -> Path:
        return self.path.parent / "local" / "personalised" / NAME

    def ledger(self) -> dict[str, bytes]:
        """The bytes of the files that a charge changes."""
        state = self.path.parent / "state"
        files = [state / "ledger.db", state / "audit.jsonl", state / "people.db", *(state / "outbox").rglob("*")]
        files += (self.path.parent / "state-anchor").iterdir()
        return {str(file): file.read_bytes() for file in files if file.is_file()}


def make_records(run: RunConfig, count: int) -> list[dict[str, Any]]:
    """Distinct short records of the run's task."""
    return [run.task.made_up(1, number, 4 + number % 3) for number in range(count)]


def keep(folder: Path, run: RunConfig, kind: str, count: int = 24, **sections: dict[str, Any]) -> KeptSite:
    """A site of a kind that took part in one round of a run, as its ledger knows, and was given the adapter."""
    run = of_kind(run, kind)
    run = lock(run, hash_model(find_model(run.model.base)))
    columns = {name: name for name in run.task.fields()}
    dataset = {"columns": columns, "validation_fraction": 0.3, **sections.pop("dataset", {})}
    compute = {"tokens_per_micro_batch": 64}  # few shapes to try
    path = write_site(folder, make_records(run, count), dataset=dataset, compute=compute, **sections)
    (folder / "state").mkdir()
    (folder / "state" / "secret.key").write_bytes(b"s" * 32)  # the same units are held out each time
    site, cap = open_site(path), cap_of(open_site(path).config.policy)
    note_split(folder / "state" / "splits", in_rounds(run), site.config.dataset)
    site.ledger.open_study("test", plan_of(run, site), cap)
    facts = {"input_sha256": "0" * 64, "run_sha256": run.sha256(), "coins": "test"}
    site.ledger.reserve(AnswerKey("test", LINEAGE, "update", 1), (run.local.steps, 0), cap, facts)
    model = warm_model(run, CPU)
    export_adapter(folder / "finished", run, model, random_state(model), make_card(run))
    store_adapter(
        folder / "models", "test", LINEAGE, {file.name: file.read_bytes() for file in (folder / "finished").iterdir()}
    )
    return KeptSite(path, run)
