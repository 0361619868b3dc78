"""From a run.toml to numbers and to a run directory.

prepared    a run made ready: its file, base model, noise and data
plan        the numbers of `confide plan`
remembered  values that were computed before
begun       the start or resumption of a simulation
reported    the report of a simulation, and the facts that it was made of
study       a simulation from start to end
reruns      a locked run carried out once more on other records, and losses of units
baselines   the comparisons of a report
"""
