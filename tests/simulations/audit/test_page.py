"""The page of an audit."""

from pathlib import Path

from confide.simulations.audit.page import write_page
from confide.simulations.audit.verdicts import TRIALS, Attack, Audit, Effort, View
from confide.simulations.reconstruction.inversion import Inversion


def _page(folder: Path, bound: float) -> str:
    views = [View("the server <b>", 3.0, [Attack("likelihood", TRIALS, bound, 0.61, 0.35)])]
    mechanism = Audit(Effort(), 4, 20, 1.5, views).as_json()
    facts = {"name": "reviews", "run_sha256": "ab" * 32, "unit": "record", "target_delta": 1e-5}
    inversion = Inversion(2, 10, 1.0, 0.1).as_json()
    write_page(folder / "audit.html", {**facts, "mechanism": mechanism, "inversion": inversion})
    return (folder / "audit.html").read_text(encoding="utf-8")


def test_a_page_tells_bounds_and_what_cannot_be_found_and_refers_to_nothing(tmp_path: Path) -> None:
    page = _page(tmp_path, 2.1)
    assert "Each lower bound below is at most the epsilon" in page
    assert "Stated: epsilon 3.00. Measured: at least 2.10." in page
    assert "Shuffled batches" in page
    assert "61.0 %" in page
    assert "the server &lt;b&gt;" in page
    assert "http" not in page


def test_a_refuted_run_is_told_in_red(tmp_path: Path) -> None:
    page = _page(tmp_path, 3.2)
    assert "does not hold on this installation" in page
    assert 'class="verdict red"' in page
