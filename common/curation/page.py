"""The report as an HTML page, which refers to nothing outside of itself."""

from pathlib import Path

import jinja2

from confide.common.curation.check import CAVEAT, Report
from confide.common.private_file import write_private

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ report.path.name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2730; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .3rem .6rem }
tr { border-top: 1px solid #dde4e8 } td { overflow-wrap: anywhere } .warning { color: #a8501f }
.problem { color: #b00020 } .ok { color: #0f6466 } small { color: #5b6873 }
</style>
<h1>{{ report.path.name }}</h1>
<p class="{{ 'problem' if report.stops() else 'ok' }}">{{ report.path.name }} {{ report.verdict() }}</p>
<p>{{ caveat }}</p>
<h2>Findings</h2>
<p><small>Numbers behind "at" are those of lines, of rows in a table.</small></p>
<table>
{% for finding in report.findings -%}
<tr><td class="{{ finding.state }}">{{ finding.state }}<td>{{ finding.subject }}<td>{{ finding.text }}
{% endfor -%}
</table>
<h2>How it is read</h2>
<p>{{ report.reading() }}</p>
<table><tr><th>ours<th>the file's
{% for name, column in report.form.columns.items() -%}<tr><td>{{ name }}<td>{{ column }}
{% endfor -%}
</table>
<h2>The first records</h2>
{% for record in report.preview -%}
<table>{% for name, value in record.items() %}<tr><td>{{ name }}<td>{{ value }}{% endfor %}</table><br>
{% endfor -%}
</html>
"""


def write_page(path: Path, report: Report) -> None:
    """Write the report as a page that only its owner may read, for it quotes records.

    Raises:
        InputError: it cannot be written there.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(_PAGE).render(report=report, caveat=CAVEAT)
    write_private(path, text, "--html")
