"""The model card."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from confide.common.config.run import RunConfig
from confide.common.model.scores import score_text


def public_base(base: str) -> str:
    """Return a base model's name as others may see it: for a folder only its last part.

    >>> public_base("/home/mary/models/minilm"), public_base("organisation/name")
    ('minilm', 'organisation/name')
    """
    path = Path(base)
    return path.name if path.is_absolute() or base[0] in "~." else base


def render_card(run: RunConfig, card: dict[str, Any]) -> str:
    """Return the model card of a locked run as Markdown; ``card`` as in `export_adapter`."""
    environment = Environment(  # noqa: S701 - Markdown, not HTML; `plain` escapes what others wrote
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(plain=_plain, number=_number, python=repr, score=_score)
    template = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    private = "no_privacy" not in card["plan"]
    return environment.from_string(template).render(
        run=run,
        card=card,
        base=public_base(run.model.base),
        plan=card["plan"] if private else None,
        peft="PeftModel" in run.adapter.program(run.task),
    )


def _score(value: float, metric: str) -> str:
    return score_text(metric, value).replace("%", " %")


def _plain(text: str) -> str:
    r"""Return text on one line, escaped so that Markdown and HTML show it as it is.

    >>> _plain("<b>\n|")
    '\\<b\\> \\|'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|!&])", r"\\\1", " ".join(text.split()))


def _number(value: float) -> str:
    """Return a number in its shortest form.

    >>> _number(1e-05), _number(2000)
    ('1e-5', '2000')
    """
    return re.sub(r"e([+-])0", r"e\1", f"{value:.10g}")
