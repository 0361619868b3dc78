"""A pause: the client answers nothing new, until a person lets it."""

from pathlib import Path

from confide.client.config import load_site_config
from confide.client.site.installation import open_site
from confide.client.steward.ledger_report import shares_held
from confide.common.errors import ConfideError


def pause(path: Path) -> list[str]:
    """Pause the client of a site.toml. Return what a person should know."""
    state = load_site_config(path).state.dir
    if not state.is_dir():
        open_site(path)  # which makes it
    (state / "paused").touch(0o600)  # first: a client must stop also where the ledger cannot be read
    said = ["paused: nothing new is answered"]
    try:
        shares = shares_held(open_site(path))
    except (ConfideError, OSError) as error:
        return [*said, f"shares that may be held here were not looked at: {error}"]
    return said + [
        f"the share of study {share['study']}, round {share['round']}, stays here: if its sum is open, that round "
        "is void for all its members, unless `confide client resume` comes before it closes"
        for share in shares
    ]


def resume(path: Path) -> str:
    """Let the client answer again."""
    (load_site_config(path).state.dir / "paused").unlink(missing_ok=True)
    return "answering again"
