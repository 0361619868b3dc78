"""Languages and scripts of texts: a hint from their commonest words and from their letters."""

import re
from collections import defaultdict
from collections.abc import Iterator

from confide.common.curation.findings import Places
from confide.common.curation.form import Seen
from confide.common.findings import Finding

_CHARS = 400  # of a text
_LEAST = 0.01  # of the texts that were recognised: a language with fewer is no mix
_WORDS = {
    "English": "the and of to was is that for with this you are it not have",
    "German": "der die und das nicht ist mit ein zu den ich es auf sie wir",
    "French": "le les et des est une dans pour que pas du je il nous avec",
    "Spanish": "el los las que y una por con para del es no muy pero como",
    "Italian": "il che di per una non sono della con molto ho gli è del ma",
    "Portuguese": "o que não uma para com os da em do um é mas foi muito",
    "Dutch": "de het een en van niet dat op ik te zijn voor met maar er",
    "Polish": "się nie na jest że do to jak ale po tak już czy był od",
    "Swedish": "och att det som inte jag är på en för med men har den av",
    "Czech": "se na je že to jsem ale jak ve si byl tak pro jsou není",
    "Turkish": "bir ve bu için çok ben ama daha ne gibi var değil kadar sonra ile",
}
_LANGUAGES_OF: dict[str, list[str]] = {
    word: [name for name, words in _WORDS.items() if word in words.split()]
    for words in _WORDS.values()
    for word in words.split()
}
_SCRIPTS = {
    "Cyrillic": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff",
    "Arabic": "\u0600-\u06ff",
    "Hebrew": "\u0590-\u05ff",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
    "Korean": "\uac00-\ud7af",
    "Japanese": "\u3040-\u30ff",
    "Chinese": "\u4e00-\u9fff",
}
_SIGNS = {name: re.compile(f"[{signs}]") for name, signs in _SCRIPTS.items()}
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str | None:
    """Return the language of a text, or its script where that is none of Latin letters; None if it is not clear.

    >>> language_of("the film was good"), language_of("der Film war nicht gut und lang"), language_of("film")
    ('English', 'German', None)
    """
    text = text[:_CHARS].lower()
    words = _WORD.findall(text)
    if not text.isascii():
        counts = {name: len(signs.findall(text)) for name, signs in _SIGNS.items()}
        script = max(counts, key=lambda name: counts[name])
        if 2 * counts[script] > sum(map(len, words)):
            return "Japanese" if script == "Chinese" and counts["Japanese"] else script
    found: defaultdict[str, int] = defaultdict(int)
    for word in words:
        for name in _LANGUAGES_OF.get(word, ()):
            found[name] += 1
    first, second = sorted((*found.values(), 0, 0), reverse=True)[:2]
    return max(found, key=lambda name: found[name]) if first >= 2 and first > second else None


class Languages:
    """Languages of the file."""

    def __init__(self) -> None:
        self.places: defaultdict[str, Places] = defaultdict(Places)
        self.unclear = 0

    def see(self, seen: Seen) -> None:
        """Take one record."""
        if name := language_of(seen.text):
            self.places[name].add(seen.number)
        else:
            self.unclear += 1

    def findings(self) -> Iterator[Finding]:
        """Yield one finding."""
        ordered = sorted(self.places.items(), key=lambda item: -item[1].count)
        if not ordered:
            yield Finding("languages", "ok", "not clear from common words")
            return
        clear = sum(places.count for _, places in ordered)
        others = [f"{name} in {places}" for name, places in ordered[1:] if places.count >= _LEAST * clear]
        text = f"{ordered[0][0]} in {ordered[0][1].count} records, not clear in {self.unclear}"
        if others:
            yield Finding("languages", "warning", f"{text}; {'; '.join(others)}: does the base know them?")
        else:
            yield Finding("languages", "ok", text)
