"""The reference pages of the documentation site, from the code: every command, and every key of each settings file.

mkdocs calls `on_files`. The pages are nowhere in the repository, so that they are never out of date.
"""

import re
from collections.abc import Iterator
from importlib.resources import files as package_files
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from confide.client.config import SiteConfig
from confide.common.cli.main import COMMANDS, command_of
from confide.common.config.run import RunConfig
from confide.server.home.home import ServerConfig

_FILES: dict[str, tuple[type[BaseModel], str, str]] = {
    "run.toml": (RunConfig, "confide.common.config", "one federated training; public, and what institutions approve"),
    "site.toml": (SiteConfig, "confide.client", "one institution's own settings; it never leaves the institution"),
    "server.toml": (ServerConfig, "confide.server.home", "the server's own settings"),
}
_HEAD = "| key | value | default | meaning |\n|---|---|---|---|"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that lie in the folder."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Return the text of each page by its path."""
    return {"reference/commands.md": _commands()} | {
        f"reference/{name.removesuffix('.toml')}-toml.md": _settings(name) for name in _FILES
    }


def _commands() -> str:
    parts = ["# Commands", "Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by policy, 4 refused by budget."]
    for name in COMMANDS:
        command = command_of(name)
        context = click.Context(command, info_name=f"confide {name}", max_content_width=100, terminal_width=100)
        parts += [f"## confide {name}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(parts) + "\n"


def _settings(name: str) -> str:
    model, package, what = _FILES[name]
    stem = name.removesuffix(".toml")
    template = package_files(package).joinpath(f"{stem}.template.toml").read_text(encoding="utf-8")
    schema, told = model.model_json_schema(), _told(template)
    parts = [f"# {name}", f"{what[0].upper()}{what[1:]}."]
    for section, content in schema["properties"].items():
        parts.append(f"## [{section}]")
        variants = _variants(content, schema)
        for variant in variants:
            parts += _table(section, variant, schema, told)
        if not variants:  # its keys are names that the institution writes
            parts.append(f"{_HEAD}\n| name of an institution | text | not set | {told[section,]} |")
    parts += ["## The file with comments", f"```toml\n{template}\n```"]
    return "\n\n".join(parts) + "\n"


def _variants(content: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of a section: several where one of its keys, as `kind`, says which keys there are."""
    choices = content.get("oneOf") or content.get("anyOf") or [content]
    return [schema["$defs"][choice["$ref"].rpartition("/")[2]] for choice in choices if "$ref" in choice]


def _table(
    section: str, variant: dict[str, Any], schema: dict[str, Any], told: dict[tuple[str, ...], str]
) -> Iterator[str]:
    fixed = [(key, value["const"]) for key, value in variant["properties"].items() if "const" in value]
    yield from (f'### {key} = "{value}"' for key, value in fixed)
    yield variant.get("description", "").replace("``", "`").split("\n\n")[0]
    kind, rows = (fixed[0][1] if fixed else ""), [_HEAD]
    for key, value in variant["properties"].items():
        default = "required" if key in variant.get("required", []) else _literal(value.get("default"))
        meaning = told.get((section, kind, key)) or told.get((section, "", key), "")
        rows.append(f"| `{key}` | {_kind(value, schema)} | {default} | {meaning} |")
    yield "\n".join(rows)


def _kind(value: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return the values that a key takes, in words."""
    if "anyOf" in value:
        return " or ".join(_kind(one, schema) for one in value["anyOf"] if one.get("type") != "null")
    if "$ref" in value:
        return _kind(schema["$defs"][value["$ref"].rpartition("/")[2]], schema)
    if "const" in value or "enum" in value:
        return ", ".join(_literal(one) for one in value.get("enum", [value.get("const")]))
    bounds = [f"{sign} {value[name]:g}" for name, sign in _BOUNDS.items() if name in value]
    words = {"array": "list", "object": "table", "string": "text"}
    kind = str(value.get("type", "value"))
    return " ".join([words.get(kind, kind), ", ".join(bounds)]).strip()


def _literal(value: object) -> str:
    if value is None or value in ([], {}):
        return "not set"
    return f"`{value!r}`".replace("'", '"').replace("`True`", "`true`").replace("`False`", "`false`")


def _told(template: str) -> dict[tuple[str, ...], str]:
    """Return the comments of a commented settings file, by section, kind or method (all: "") and key, or by section."""
    told: dict[tuple[str, ...], str] = {}
    section = kind = ""
    last: tuple[str, ...] = ()
    for line in template.splitlines():
        if head := re.match(r"(?:# )?\[(\w+)\]", line):
            section, kind, last = head[1], "", (head[1],)
        elif line.startswith("# Of "):
            only = re.match(r'# Of (?:kind|method) "([\w-]+)" only', line)
            kind, last = only[1] if only else "", ()
        elif key := re.match(r"#? *(\w+) = ", line):
            last = (section, kind, key[1])
        more = re.fullmatch(r"# {8,}# (.+)", line)
        if last and (comment := more or re.fullmatch(r"\S.*?\S[ \t]+# (.+)", line)):
            words = re.sub(r"^example[;:] ", "", comment[1]).replace("|", "\\|")
            told[last] = f"{told[last]} {words}" if more else words
    return told
