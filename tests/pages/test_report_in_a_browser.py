"""A run's report in a real browser, as whoever gets the file by mail opens it."""

from pathlib import Path

from support.browser import window
from support.reports import LOOK, make_facts, rendered


def test_the_report_can_be_read_by_everybody(tmp_path: Path) -> None:
    """All its parts, opened, on a large screen and on a telephone."""
    sample = {"input": "a text " * 40, "answer": "an/answer-without-blanks" * 4, "right": "positive"}
    dropped = {"dropped": ["st-jude: norm: not finite, or above the bound"]}
    facts = make_facts(look=LOOK, samples=[sample], own_data=True)
    rendered(tmp_path, {**facts, "rounds": [{**row, **dropped} for row in facts["rounds"]]})
    with window(tmp_path / "profile") as seen:
        seen.page.goto((tmp_path / "report.html").as_uri())
        seen.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        for width in (1100, 390):
            seen.page.set_viewport_size({"width": width, "height": 900})
            assert (width, seen.complaints(), seen.is_too_wide()) == (width, [], False)
        assert (seen.errors, seen.hosts) == ([], {""})
