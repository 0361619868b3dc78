"""Ledgers and policies of three institutions that take part in `confide simulate --site`."""

import json
from pathlib import Path
from typing import Any

from support.installations import write_site

from confide.client.privacy.account import Account
from confide.client.site.installation import open_site

NAMES = ("st-mary", "st-jude", "st-luke")


def account_of(path: Path) -> Account:
    """As a client that starts now would find it on the disk."""
    return open_site(path).ledger.account()


def kinds_of(path: Path) -> list[str]:
    return [row["kind"] for row, _ in open_site(path).ledger.rows()]


def reserved_by(path: Path, name: str = "small") -> int:
    studies = account_of(path).studies
    return studies[name].reserved_steps if name in studies else 0


def set_policy(path: Path, **policy: Any) -> None:
    """Edit the policy of a site.toml."""
    name = path.parent.name
    records = [json.loads(line) for line in (path.parent / "notes.jsonl").read_text(encoding="utf-8").splitlines()]
    write_site(path.parent, records, name=name, policy=policy)
