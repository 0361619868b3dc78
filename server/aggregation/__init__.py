"""Aggregation rules: each file has init(), add(state, update, weight), result(state). One rule, one file, one line here."""

from types import ModuleType

from confide.server.aggregation import fedavg, median, trimmed_mean

RULES: dict[str, ModuleType] = {"fedavg": fedavg, "median": median, "trimmed-mean": trimmed_mean}
