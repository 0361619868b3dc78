"""The facts of the server's page."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from confide.common.config.run import RunConfig
from confide.server.page.facts import ShownRun

MakeRun = Callable[..., RunConfig]


@pytest.mark.parametrize(("score", "ends"), [(-0.25, ("-0.250", "0.500")), (0.25, ("0.000", "0.500"))])
def test_a_correlation_below_0_is_drawn_inside_the_frame(
    make_run: MakeRun, score: float, ends: tuple[str, str]
) -> None:
    rounds = {
        number: {"round": number, "score": {"metric": "pearson", "mean": mean, "per_institution": {}}}
        for number, mean in ((1, score), (2, 0.5))
    }
    followed: Any = SimpleNamespace(rounds=rounds)
    queued: Any = None
    shown = ShownRun(queued, make_run(), followed, None)
    assert shown.ends_of_scores() == ends
    assert f"L{100 * 2 / make_run().federation.num_rounds:.2f} 0.00" in shown.picture_of_scores()
