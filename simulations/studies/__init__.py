"""From a run.toml to numbers and to a run directory.

plan        the numbers of `confide plan`
remembered  values that were computed before
begun       the start or resumption of a simulation
study       a simulation from start to end
baselines   the comparisons of a report
"""
