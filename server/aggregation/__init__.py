"""Aggregation rules: init(), add(state, update, weight), result(state). A new one: a file, a line here, its test."""

from types import ModuleType

from confide.server.aggregation import fedavg, median, trimmed_mean

RULES: dict[str, ModuleType] = {"fedavg": fedavg, "median": median, "trimmed-mean": trimmed_mean}
