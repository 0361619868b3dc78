"""Aggregation rules: init(), add(state, update, weight), result(state). A new one needs a file, a line here, a test.

fedavg        weighted mean
median        coordinate-wise median
trimmed_mean  mean without the highest and lowest fifth
"""

from types import ModuleType

from confide.server.aggregation import fedavg, median, trimmed_mean

RULES: dict[str, ModuleType] = {"fedavg": fedavg, "median": median, "trimmed-mean": trimmed_mean}
