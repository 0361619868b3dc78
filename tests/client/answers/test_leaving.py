"""Every number that leaves is public, or private by a named mechanism: nothing else leaves, in any disguise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support import guarantees
from support.guarantees import PoisonedTokenizer
from support.installations import Asking, kinds, write_site
from support.leaving import (
    CANARY,
    canary_site,
    disguises,
    grouped,
    planted,
    search,
    sent,
    study,
    study_kinds,
    transferred,
)
from support.sites import make_records
from support.tiny_bert import tiny_tokenizer

from confide.client.answers import answering
from confide.client.answers import round as round_module
from confide.client.site.installation import open_site
from confide.client.training import shares
from confide.common.config.run import RunConfig, lock
from confide.common.config.sections import Transfer
from confide.common.errors import InputError
from confide.common.model.base_models import hash_model
from confide.common.tasks import TextClassification

MakeRun = Callable[..., RunConfig]
NEEDLES = disguises(CANARY, tiny_tokenizer())
ROUNDS = 2


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    """Two rounds, each with validation counts."""
    run = make_run(
        local={"sampling_probability": 1.0, "nominal_units": 20},
        federation={"num_rounds": ROUNDS},
        evaluation={"validation_every": 1},
    )
    return lock(run, hash_model(base_folder))


# The search


def test_each_kind_of_leak_is_found() -> None:
    leaks = planted(CANARY, tiny_tokenizer())
    assert len(leaks) > 40
    for name, leak in leaks.items():
        assert search(leak, NEEDLES), f"{name} is not found"


def test_nothing_is_found_where_nothing_is() -> None:
    other = planted("Quixotic Zebra 4482 of Kumquat Row", tiny_tokenizer())
    for name, leak in other.items():
        assert not search(leak, NEEDLES), f"{name} is found"
    assert not search(bytes(range(256)) * 1000, NEEDLES)


# (a) A canary in every place that is private


def _left(asking: Asking) -> bytes:
    return b"".join(sent(reply) for reply in asking.replies)


def test_no_canary_leaves_in_a_run(run: RunConfig, tmp_path: Path) -> None:
    site = open_site(canary_site(tmp_path))
    asking = Asking(grouped(run), lambda: site)
    assert kinds(asking.offer()) == ["accepted"]
    for number in range(1, ROUNDS + 1):
        assert kinds(asking.update(number)) == kinds(asking.counts(number)) == ["update"]
    assert len(_left(asking)) > 10_000
    assert search(_left(asking), NEEDLES) == set()


REFUSALS: dict[str, dict[str, Any]] = {
    "approval": {"policy": {"require_approval": True}},
    "study": {"policy": {"studies": [CANARY]}},
    "steps": {"policy": {"max_steps": 1}},
    "no policy": {"policy": {"max_epsilon": None}},
    "no metrics": {"policy": {"share_metrics": "none"}},
    "no such file": {"dataset": {"path": f"no {CANARY}.jsonl"}},
    "no such column": {"dataset": {"columns": {"text": f"no {CANARY}", "group": "patient"}}},
    "no file that we know": {"dataset": {"path": f"{CANARY}.canary"}},
    "a network of folders": {"state": {"dir": f"{CANARY}.jsonl"}},
}


@pytest.mark.parametrize("sections", REFUSALS.values(), ids=REFUSALS)
def test_no_canary_leaves_in_a_refusal(run: RunConfig, tmp_path: Path, sections: dict[str, Any]) -> None:
    path = canary_site(tmp_path, **sections)
    asking = Asking(grouped(run), lambda: open_site(path))
    said = [kinds(reply) for reply in (asking.offer(), asking.update(), asking.counts())]
    assert ["declined"] in said
    assert {word for kind in said for word in kind} <= {"declined", "waiting", "accepted", "update"}
    assert search(_left(asking), NEEDLES) == set()


PLACES = ["prepare", "warm_model", "train", "validate", "encode", "dump_state", "seal_envelope", "release"]


@pytest.mark.parametrize("place", PLACES)
def test_no_canary_leaves_in_an_error(
    run: RunConfig, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*rest: object, **settings: object) -> object:
        raise RuntimeError(f"a text of {CANARY}") from InputError(CANARY)

    path = canary_site(tmp_path)
    asking = Asking(grouped(run), lambda: open_site(path))
    modules = {"prepare": shares, "warm_model": shares, "release": answering}
    monkeypatch.setattr(modules.get(place, round_module), place, fail)
    for reply in (asking.offer(), asking.update(), asking.update(2), asking.counts()):
        assert kinds(reply) in (["declined"], ["accepted"], ["update"])
    assert ["declined"] in [kinds(reply.content) for reply in asking.replies]
    assert search(_left(asking), NEEDLES) == set()
    errors = next(tmp_path.glob("*/local/errors.log")).read_bytes()
    assert "utf-8" in search(errors, NEEDLES), "the institution itself is told"


# (b) One hostile unit changes nothing but numbers in tensors

HOSTILE: dict[str, dict[str, Any]] = {
    "poison for the tokenizer": {"text": "poison"},
    "not finite": {"text": "% % %"},
    "empty": {"text": ""},
    "blank": {"text": " \n"},
    "no text": {"text": None},
    "a number": {"text": 17},
    "half a character": {"text": "\ud800 good"},
    "a hundred times longer": {"text": "good " * 2000},
    "another label": {"label": "neutral"},
    "no label": {"label": None},
    "a label that is a list": {"label": ["positive"]},
    "a copy": {"text": make_records(1)[0]["text"]},
    "a surprise": {"text": "\u0000\u202e\u200b" * 20},
}


@pytest.fixture
def _hostile_libraries(monkeypatch: pytest.MonkeyPatch, make_run: MakeRun) -> None:
    """A tokenizer that raises at "poison", and a model that gives NaN for texts of per cent signs."""
    real_logits, real_model = TextClassification.logits, shares.warm_model

    def logits(self: Any, module: Any, batch: Any) -> torch.Tensor:
        percent = tiny_tokenizer().convert_tokens_to_ids("%")
        strange = (batch["input_ids"][:, 1:4] == percent).all(dim=1, keepdim=True)
        return torch.where(strange, float("nan"), real_logits(self, module, batch))

    def warm_model(run: RunConfig, *settings: Any) -> Any:
        model = real_model(run, *settings)
        return replace(model, tokenizer=PoisonedTokenizer(model.tokenizer, {"poison"}))

    monkeypatch.setattr(TextClassification, "logits", logits)
    monkeypatch.setattr(shares, "warm_model", warm_model)


@pytest.mark.usefixtures("_hostile_libraries")
def test_one_hostile_record_changes_no_message(run: RunConfig, tmp_path: Path) -> None:
    records = make_records(12)
    without = study(run, tmp_path / "without", records)
    assert [kind for reply in without for kind in reply["kinds"]] == study_kinds(run)
    for number, (name, change) in enumerate(HOSTILE.items()):
        place = (0, 6, 12)[number % 3]  # a record can decide what is read first, and what last
        changed = [*records[:place], {**records[3], **change}, *records[place:]]
        assert study(run, tmp_path / name, changed) == without, name


@pytest.mark.usefixtures("_hostile_libraries")
@pytest.mark.parametrize("fraction", [0.0, 0.999999], ids=["training", "validation"])
def test_one_hostile_record_alone_changes_no_message(run: RunConfig, tmp_path: Path, fraction: float) -> None:
    """The smallest data that there are: a share of one unit, or of none."""
    [record] = make_records(1)
    ordinary = study(run, tmp_path / "ordinary", [record], validation_fraction=fraction)
    assert [kind for reply in ordinary for kind in reply["kinds"]] == study_kinds(run)
    for name, change in HOSTILE.items():
        assert study(run, tmp_path / name, [{**record, **change}], validation_fraction=fraction) == ordinary, name


@pytest.mark.usefixtures("_hostile_libraries")
def test_one_hostile_group_changes_no_message(run: RunConfig, tmp_path: Path) -> None:
    records, by_group = make_records(12, groups=4), grouped(run)
    settings = {"unit": "group", "columns": {"group": "group"}, "max_records_per_group": 3}
    without = study(by_group, tmp_path / "without", records, **settings)
    assert [kind for reply in without for kind in reply["kinds"]] == study_kinds(run)
    groups = {
        "one more": [{**records[0], "group": "patient 7"}],
        "a hundred records": [{**record, "group": "patient 7"} for record in make_records(100)],
        "all hostile": [{**records[0], **change, "group": "patient 7"} for change in HOSTILE.values()],
        "hostile in another's group": [{**records[0], **change} for change in HOSTILE.values()],
        "nobody's": [{**records[0], "group": group} for group in (None, "", float("nan"), ["a"], {"a": 1}, 7.5)],
    }
    for name, more in groups.items():
        assert study(by_group, tmp_path / name, [*more, *records], **settings) == without, name


LATER: dict[str, str] = {
    "a record without a label": '{"text": "good"}\n',
    "a record without a text": '{"label": "positive"}\n',
    "a line that is not JSON": '{"text": "good", "label": \n',
    "a line that is not UTF-8": "\udcff\n",
    "no record any more": "",
}


@pytest.mark.parametrize("name", LATER)
def test_after_joining_no_line_of_the_file_changes_whether_a_round_is_answered(
    run: RunConfig, tmp_path: Path, name: str
) -> None:
    path = write_site(tmp_path, make_records(1))
    asking = Asking(run, lambda: open_site(path))
    assert kinds(asking.offer()) == ["accepted"]
    with (tmp_path / "notes.jsonl").open("a" if LATER[name] else "w", errors="surrogateescape") as file:
        file.write(LATER[name])
    asking.restart(lambda: open_site(path))
    assert kinds(asking.update()) == ["update"]


def test_after_joining_no_parquet_value_changes_whether_a_round_is_answered(run: RunConfig, tmp_path: Path) -> None:
    """A date that Python does not know, in a column that nobody uses."""
    path, file = write_site(tmp_path, dataset={"path": "notes.parquet"}), tmp_path / "notes.parquet"
    table = pa.Table.from_pylist(make_records(1))
    pq.write_table(table, file)
    asking = Asking(run, lambda: open_site(path))
    assert kinds(asking.offer()) == ["accepted"]
    pq.write_table(table.append_column("seen", pa.array([2**31 - 1], pa.int32()).view(pa.date32())), file)
    asking.restart(lambda: open_site(path))
    assert kinds(asking.update()) == ["update"]


class Panic(BaseException):
    """What a panic of Rust code is in Python, the tokenizers library's too: `except Exception` does not see it."""


def test_a_record_on_which_the_tokenizer_panics_counts_as_absent(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TextClassification.examples

    def examples(self: Any, record: Any, tokenizer: Any) -> Any:
        if record["text"] == "poison":
            raise Panic("called `Option::unwrap()` on a `None` value")
        return real(self, record, tokenizer)

    monkeypatch.setattr(TextClassification, "examples", examples)
    records = make_records(6)
    assert study(run, tmp_path / "with", [*records, {**records[0], "text": "poison"}]) == study(run, tmp_path, records)


@pytest.mark.parametrize("transfer", get_args(Transfer))
def test_the_presence_of_one_unit_changes_no_message(run: RunConfig, transfer: Transfer) -> None:
    guarantees.check_one_unit_changes_no_message(transferred(run, transfer))


def test_an_update_is_a_function_of_its_noised_change_alone(run: RunConfig) -> None:
    guarantees.check_an_update_is_a_function_of_its_noised_change(run)


def test_no_private_text_leaves(run: RunConfig) -> None:
    guarantees.check_no_private_text_leaves(run)


def test_two_institutions_share_no_coins_whatever_the_server_says(run: RunConfig) -> None:
    guarantees.check_no_server_chooses_the_coins(run)
