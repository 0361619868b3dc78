"""A pause: the client answers nothing new, until a person lets it."""

from pathlib import Path

from confide.client.site.installation import open_site
from confide.client.steward.ledger_report import shares_held


def pause(path: Path) -> list[str]:
    """Pause the client of a site.toml. Return what a person should know."""
    site = open_site(path)
    (site.config.state.dir / "paused").touch(0o600)
    held = [
        f"the share of study {share['study']}, round {share['round']}, stays here: if its sum is open, that round "
        "is void for all its members, unless `confide client resume` comes before it closes"
        for share in shares_held(site)
    ]
    return ["paused: nothing new is answered", *held]


def resume(path: Path) -> str:
    """Let the client answer again."""
    (open_site(path).config.state.dir / "paused").unlink(missing_ok=True)
    return "answering again"
