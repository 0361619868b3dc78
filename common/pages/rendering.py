"""Templates with all values escaped. A template extends `base.html`, or is one of this room."""

import functools
import time
from importlib.resources import files
from typing import Any

import jinja2

from confide.common.aloud import hash_start
from confide.common.model.scores import score_text
from confide.common.shown import shown

_OWN = "confide.common.pages"


def render(name: str, root: str, package: str = _OWN, **values: Any) -> str:
    """Return a page.

    Args:
        name: file of the template.
        root: path below which the application stands.
        package: of the template; what it extends may stand here.
        values: of the template. Each is escaped where it stands.
    """
    return templates(package).get_template(name).render(root=root, **values)


@functools.cache
def templates(package: str) -> jinja2.Environment:
    """Return the templates of a package, before those of this room."""

    def load(name: str) -> str | None:
        for place in (package, _OWN):
            file = files(place).joinpath(name)
            if file.is_file():
                return file.read_text(encoding="utf-8")
        return None

    loader = jinja2.FunctionLoader(load)
    made = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    made.filters |= {"shown": shown, "number": _number, "when": when, "clock": _clock, "score": _score}
    made.filters["hash_start"] = hash_start
    return made


def _number(value: float) -> str:
    """Return a number with separators.

    >>> _number(12345), _number(0.25), _number(2.0)
    ('12,345', '0.25', '2')
    """
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}".rstrip("0").rstrip(".")


def _score(value: float, metric: str) -> str:
    return score_text(metric, value)


def _clock(moment: str) -> str:
    """Return a moment of a log as a person reads it.

    >>> _clock("2026-11-13T08:18:15Z"), _clock("2026-11-13T08:18:15.123456+00:00")
    ('2026-11-13 08:18:15 UTC', '2026-11-13 08:18:15 UTC')
    """
    return f"{moment[:10]} {moment[11:19]} UTC"


def when(seconds: float) -> str:
    """Return a time as a person reads it, in UTC.

    >>> when(0)
    '1 January 1970, 00:00 UTC'
    """
    moment = time.gmtime(seconds)
    return f"{moment.tm_mday} {time.strftime('%B %Y, %H:%M UTC', moment)}"
