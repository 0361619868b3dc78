"""From a run.toml to numbers and to a run directory.

prepared    a run made ready: its file, base model, noise and data
plan        the numbers of `confide plan`
remembered  values that were computed before
begun       the start or resumption of a simulation
study       a simulation from start to end
baselines   the comparisons of a report
"""
