"""Explanations as an HTML page, which refers to nothing outside of itself."""

from pathlib import Path
from typing import Any

import jinja2

from confide.common.explanation.coloured import names_of, pieces
from confide.common.private_file import write_private

MAX_RECORDS = 500  # of a page

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Explained predictions</title>
<style>
body { font: 15px/1.6 system-ui, sans-serif; color: #1d2730; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid #dde4e8; padding: .6rem 0 } small { color: #5b6873 }
p { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere }
</style>
<h1>Explained predictions</h1>
<p><small>Each word is coloured by its share in the value: green for it, red against it (integrated gradients from a
text of padding). The shares add up to the value less that of padding. They say what moved this model, not what is true.
</small></p>
{% for record in records -%}
<section>
{% for explained in record.explanation -%}
<p><b>{{ names_of(explained) }}</b> <small>{{ "%.3g"|format(explained.value) }}, of padding
{{ "%.3g"|format(explained.baseline) }}</small></p>
{% for column, text in record.texts.items() -%}
<p>{% for piece, share in pieces(text, explained.tokens|selectattr("column", "equalto", column)|list) -%}
{% if share -%}
<span style="background: rgba({{ "20,140,80" if share > 0 else "200,50,40" }},{{ "%.2f"|format(share|abs * 0.7) }})"
 title="{{ "%+.2f"|format(share) }} of the strongest">{{ piece }}</span>
{%- else %}{{ piece }}{% endif %}{% endfor %}</p>
{% endfor %}{% else -%}
<p>{% for text in record.texts.values() %}{{ text }} {% endfor %}<small>nothing was found here</small></p>
{% endfor -%}
</section>
{% endfor -%}
{% if more %}<p>{{ more }} more records are not shown.</p>{% endif %}
</html>
"""


def write_page(path: Path, records: list[dict[str, Any]], more: int = 0) -> None:
    """Write explained records as a page that only its owner may read, for it quotes them.

    Args:
        path: of the page.
        records: each with ``texts`` (by column) and ``explanation``.
        more: records that are left out.

    Raises:
        InputError: it cannot be written there.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(_PAGE)
    write_private(path, page.render(records=records, names_of=names_of, pieces=pieces, more=more), "--explain-html")
