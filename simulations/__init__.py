"""A whole federation on one machine, through the same ServerApp and ClientApp as a real one.

cli           `confide simulate`              federation   one run from data to result
texts         texts that packages carry       institutions a table of records -> institutions
grid          the in-process Flower Grid      ray          Flower's Ray engine
faults        what can go wrong, on purpose   baselines    the comparisons of a report
scenarios/    run.toml files                  benchmarks/  scripts, not shipped
"""
