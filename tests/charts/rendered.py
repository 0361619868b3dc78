"""The charts as helm renders them, and whether Kubernetes would take the result."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "deploy" / "helm"
TOOLS = ROOT / "build" / "tools" / "bin"
SITE = """
[institution]
name = "st-mary"
[dataset]
path = "/data/reviews.jsonl"
[state]
anchor = "/srv/confide-anchor"
"""
ADDRESS = "203.0.113.7/32"
NEEDED: dict[str, dict[str, Any]] = {
    "server": {"hosts": ["fl.example.org"]},
    "institution": {"site": SITE, "egress": {"addresses": [ADDRESS]}, "data": {"claim": "records"}},
}
_BASES = [{"name": "my-base", "claim": "models", "subPath": "my-base"}, {"name": "other", "claim": "models"}]
ALL: dict[str, dict[str, Any]] = {
    "server": {
        "hosts": ["fl.example.org", "203.0.113.7", "2001:db8::7"],
        "image": {"repository": "registry.example.org/confide", "tag": "0.1.0-1"},
        "imagePullSecrets": [{"name": "pull"}],
        "service": {"type": "LoadBalancer", "annotations": {"a/b": "c"}, "sourceRanges": [ADDRESS]},
        "tls": {"secret": "confide-tls"},
        "home": {"size": "20Gi", "storageClass": "local"},
        "baseModels": _BASES,
        "networkPolicy": {
            "from": [{"ipBlock": {"cidr": ADDRESS}}],
            "egress": [{"to": [{"ipBlock": {"cidr": ADDRESS}}], "ports": [{"protocol": "TCP", "port": 5000}]}],
        },
        "nodeSelector": {"disk": "local"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
    },
    "institution": {
        **NEEDED["institution"],
        "egress": {"addresses": [ADDRESS, "2001:db8::7/128"], "port": 3128, "proxy": "http://proxy.example.org:3128"},
        "data": {"claim": "records", "subPath": "reviews"},
        "state": {"size": "20Gi", "storageClass": "local"},
        "baseModels": _BASES,
        "gpu": {"count": 1},
        "nodeSelector": {"disk": "local"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
    },
}


class HelmError(Exception):
    """helm would not render a chart."""


def render(chart: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that a chart makes; `HelmError` with helm's words if it refuses."""
    words = [TOOLS / "helm", "template", "confide", chart, "--values", "-"]
    done = subprocess.run(words, input=json.dumps(values), capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmError(done.stderr)
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@cache
def _validator(version: str, kind: str) -> Draft7Validator:
    text = (Path(__file__).parent / "schemas" / f"kubernetes-{version}.json").read_text(encoding="utf-8")
    schemas = json.loads(text)
    return Draft7Validator({"$ref": f"#/$defs/{schemas['kinds'][kind]}", "$defs": schemas["$defs"]})


def faults(each: dict[str, Any], version: str) -> list[str]:
    """Return what a version of Kubernetes would find wrong in an object."""
    found = _validator(version, each["kind"]).iter_errors(each)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]
