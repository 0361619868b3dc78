"""The page audit.html. It refers to nothing outside the file."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

_MAY_BE_ABSENT = ("texts", "membership", "finished", "head", "matching", "exposure")


def write_page(path: Path, facts: dict[str, Any]) -> None:
    """Write an audit's page.

    Args:
        path: the HTML file.
        facts: ``name``, ``run_sha256``, ``target_delta``, ``unit``, ``mechanism``: `verdicts.Audit.as_json`,
            and ``inversion``: `inversion.Inversion.as_json`; ``head``, ``matching`` and ``exposure``, those of
            `heads.HeadAttack`, `matching.Matching` and `exposure.Exposure`, ``texts``, that of
            `text_canaries.TextAudit`, and ``membership``, that of `membership.Membership` with ``finished``, the run
            that it is of, may be absent.

    Raises:
        jinja2.UndefinedError: a fact is missing.
    """
    pages = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters.update(share=_share, epsilon=_epsilon)
    template = pages.from_string(files("confide.simulations.audit").joinpath("audit.html").read_text(encoding="utf-8"))
    path.write_text(template.render({**dict.fromkeys(_MAY_BE_ABSENT), **facts}, blind=BLIND), encoding="utf-8")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _epsilon(value: float) -> str:
    """Return an epsilon with two decimals.

    >>> _epsilon(2.9998), _epsilon(30.0)
    ('3.00', '30.00')
    """
    return f"{value:.2f}"


# Mistakes that these attacks cannot show, each with the reason and with what shows it.
BLIND = (
    (
        "Shuffled batches in place of independent draws",
        "A canary is drawn as often, and its numbers look the same. The harm needs other records that betray the order "
        "(arXiv 2411.04205). The tests of the project look at the draws themselves.",
    ),
    (
        "Noise from a seed that the server knows, if each step has another",
        "The noise has the right size, and no attack here guesses the seed. Confide's noise comes from a key of the "
        "operating system, and a test compares two runs of one seed.",
    ),
    (
        "A loss or a layer that mixes the records of a batch",
        "The canaries have a model of their own. The client tries the real model before each run: a row must give the "
        "same bits whatever the other rows are (docs/guarantee.md, “Bit for bit”).",
    ),
    (
        "Last bits of floating point",
        "A server that chooses weights can make a last bit large. That needs weights and texts made for it; tests do "
        "that.",
    ),
    (
        "Noised validation counts, and all that is sent beside updates",
        "Only updates and sums are attacked here. The stated epsilon counts the validation counts, too.",
    ),
    (
        "More noise, or smaller contributions, than stated",
        "Nobody is less protected by that, so there is nothing to find.",
    ),
    (
        "A client that was changed",
        "The audit runs the code of this installation. It tells nothing about what another machine runs.",
    ),
)
