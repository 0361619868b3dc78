"""TOML files as checked settings, with errors that name the file, the key, the value and the rule."""

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from confide.common.config.faults import meant, reading_fault, rule_of
from confide.common.errors import InputError
from confide.common.settings import Section
from confide.common.shown import shown

Model = TypeVar("Model", bound="Section")


def read_toml(path: Path, model: type[Section]) -> dict[str, Any]:
    """Return a TOML file's content; `InputError` names the file, the line that does not parse, and the remedy."""
    content = b""
    try:
        content = path.read_bytes()
        return tomllib.loads(content.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {reading_fault(error, content)}; {model.remedy}") from None


def expanded(path: Path, key: str) -> Path:
    """Return a path with ``~`` as a home folder; `InputError` names the key if there is no such home."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise InputError(f"{key} = {str(path)!r}: nobody's home folder is known by that; write it in full") from None


def apply_override(content: dict[str, Any], override: str) -> None:
    """Change one value of a file's content by ``"section.key=value"``, the value as TOML writes it or a bare word."""
    key, equals, text = override.partition("=")
    section, dot, name = key.partition(".")
    if not (equals and dot and name):
        raise InputError(
            f"--set {override!r} must have the form section.key=value, for example federation.num_rounds=10"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if not isinstance(content.setdefault(section, {}), dict):
        raise InputError(f"--set {override!r}: {section!r} is a value in the file, must be a section: [{section}]")
    content[section][name] = value


def check(model: type[Model], content: dict[str, Any], source: str) -> Model:
    """Return the content as a checked model.

    Raises:
        InputError: one line for the first fault, with the number of further ones.
    """
    try:
        # As JSON: there, strict mode still takes a list for a tuple and a string for a path.
        return model.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        key = shown(_key(first["loc"], content), 200)
        if first["type"] == "union_tag_invalid":
            kinds, kind = first["ctx"]["expected_tags"], first["ctx"]["tag"]
            name = "method" if key == "adapter" else "kind"
            raise InputError(f"{source}: {key}.{name} = {kind!r}: must be one of {kinds}; {model.remedy}") from None
        if first["type"] == "value_error":  # a rule of ours, which names its own key
            raise InputError(f"{source}: {key and key + ': '}{first['msg'].removeprefix('Value error, ')}") from None
        value = "" if first["type"] == "missing" else f" = {first['input']!r}"
        rule = rule_of(first)
        if first["type"] == "extra_forbidden":
            rule += meant(model, first["loc"])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{source}: {key}{value}: {rule}; {model.remedy}{more}") from None


def _key(place: tuple[int | str, ...], content: Any) -> str:
    """Return the key of a fault, without the kinds of task that pydantic names on the way to it."""
    parts = list[str]()
    for number, part in enumerate(place):
        if isinstance(content, dict) and part not in content and number < len(place) - 1:
            continue
        parts.append(str(part))
        content = content.get(part) if isinstance(content, dict) else None
    return ".".join(parts)
