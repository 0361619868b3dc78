"""Signs of a wrong encoding: replacement characters, control characters, UTF-8 that was read as Windows-1252."""

import re
from collections.abc import Iterator

from confide.common.curation.findings import Places
from confide.common.curation.form import Seen
from confide.common.findings import Finding


def _signs(codes: range) -> str:
    """Return the characters that bytes of UTF-8 become in Windows-1252 (in Latin-1 for the five that it lacks)."""
    decoded = (bytes([code]).decode("cp1252", errors="ignore") or chr(code) for code in codes)
    return re.escape("".join(decoded))


_BEHIND = _signs(range(0x80, 0xC0))
# One letter of Latin-1 or a quote is enough. Other pairs also occur in good texts ("Spaß" and a closing quote), so two
# of them must stand side by side, as in words of Cyrillic or Greek letters.
_MOJIBAKE = re.compile(f"[ÂÃ][{_BEHIND}]|â(?:€|‚)[{_BEHIND}]|(?:[{_signs(range(0xC4, 0xE0))}][{_BEHIND}]){{2}}")
_FAULTS = {
    "replacement characters": (re.compile("\ufffd"), "the letters are lost: write the file again from its source"),
    "control characters": (re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"), "take them out"),
    "mojibake": (_MOJIBAKE, "UTF-8 that was read as Windows-1252, as in 'schÃ¶n': convert it back"),
}


class Encodings:
    """Faults of encoding, each by its places."""

    def __init__(self) -> None:
        self.places = {name: Places() for name in _FAULTS}

    def see(self, seen: Seen) -> None:
        """Take one record."""
        for name, (signs, _) in _FAULTS.items():
            if signs.search(seen.text):
                self.places[name].add(seen.number)

    def findings(self) -> Iterator[Finding]:
        """Yield one finding for each fault that is there, or one that there is none."""
        there = [name for name, places in self.places.items() if places.count]
        for name in there:
            yield Finding(name, "warning", f"{self.places[name]}; {_FAULTS[name][1]}")
        if not there:
            yield Finding("encoding", "ok", "no sign of a wrong one in the records that can be read")
