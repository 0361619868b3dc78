"""What the benchmarks compute from logs."""

from confide.simulations.benchmarks.deployment import training_seconds

_LOG = """2026-11-22 07:00:00,000 query.offer, round 0: answer ready after 9.100 s
2026-11-22 07:00:00,000 train, round 1
2026-11-22 07:00:02,000 train, round 1: answer ready after 2.500 s
2026-11-22 07:00:02,000 evaluate, round 1: answer ready after 7.000 s
2026-11-22 07:00:04,000 train, round 12: answer ready after 0.125 s
"""


def test_training_seconds_are_those_of_training_by_round() -> None:
    assert training_seconds(_LOG) == {1: 2.5, 12: 0.125}
