"""The trial of docs/kubernetes.md and the settings of the charts, as far as they can be checked without their tools."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
INSTITUTIONS = ["north", "south", "west"]


def complaints(trial: dict[str, Any]) -> list[str]:
    """Every rule that the services of a compose file break."""
    found, services = [], trial["services"]
    for name, service in services.items():
        wrong = {
            "root": service.get("user", "") in ("0", "root") or service.get("privileged", False),
            "writable": service.get("read_only") is not True,
            "rights": service.get("cap_drop") != ["ALL"] or "cap_add" in service,
            "gains": service.get("security_opt") != ["no-new-privileges:true"],
            "scales": "container_name" not in service,
            "listens": "ports" in service,
            "volumes": bool({_source(each) for each in service["volumes"]} - {*trial["volumes"], "./trial.py"}),
            "homes": [_source(each) for each in service["volumes"] if _at_home(each)]
            != [name if name != "operator" else "server"],
        }
        found += [f"{name}: {why}" for why, holds in wrong.items() if holds]
    for name in INSTITUTIONS:
        if services[name]["networks"] != [name] or services[name]["stop_grace_period"] != "900s":
            found.append(f"{name}: network or grace")
    found += [f"{name} leads out" for name, network in trial["networks"].items() if not network.get("internal")]
    return found


def _source(volume: str) -> str:
    return volume.partition(":")[0]


def _at_home(volume: str) -> bool:
    return volume.split(":")[1] == "/var/lib/confide"


@pytest.fixture
def trial() -> dict[str, Any]:
    """The compose file, with its merges done."""
    content: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return content


def test_the_trial_has_a_server_and_three_institutions(trial: dict[str, Any]) -> None:
    assert sorted(trial["services"]) == sorted([*INSTITUTIONS, "operator", "server"])
    assert complaints(trial) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("read_only: true", "read_only: false", "north: writable"),
        ("cap_drop: [ALL]", "cap_drop: []", "server: rights"),
        ("    container_name: confide-west\n", "", "west: scales"),
        ("    networks: [south]", "    networks: [south, north]", "south: network"),
        ("south: {internal: true}", "south: {}", "south leads out"),
        ("north:/var/lib", "south:/var/lib", "north: homes"),
        ("hostname: server", "ports: ['8444:8444']", "server: listens"),
        ("stop_grace_period: 900s", "stop_grace_period: 10s", "west: network or grace"),
        ("restart: unless-stopped", "user: root", "operator: root"),
    ],
)
def test_each_rule_of_the_trial_finds_its_mistake(old: str, new: str, found: str) -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    assert old in text
    assert found in " ".join(complaints(yaml.safe_load(text.replace(old, new))))


@pytest.mark.parametrize(("end", "needed"), [("server", ["hosts"]), ("institution", ["site", "egress", "data"])])
def test_the_settings_of_a_chart_lack_only_what_nobody_can_guess(end: str, needed: list[str]) -> None:
    folder = ROOT / "deploy" / "helm" / end
    schema = json.loads((folder / "values.schema.json").read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    values = yaml.safe_load((folder / "values.yaml").read_text(encoding="utf-8"))
    assert {error.absolute_path[0] for error in Draft7Validator(schema).iter_errors(values)} == set(needed)
    assert set(values) == set(schema["properties"]) - {"global"}
