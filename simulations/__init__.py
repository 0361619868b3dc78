"""A whole federation on one machine, through the same ServerApp and ClientApp as a real one.

cli           `confide simulate`
begun         the start or resumption of a simulation
study         from a run.toml to a run directory
ending        the last lines of `confide simulate`
interruption  Ctrl-C and SIGTERM
unfinished    the state of an unfinished simulation
federation    one run, in process
grid          the in-process Flower Grid
ray           the same on Flower's Ray engine
faults        faults of an institution, on purpose
texts         texts that packages carry
partition     records -> institutions
institutions  records -> private and public shares
sites         an institution's settings
real_sites    real site files on this machine
baselines     the comparisons of a report
plan          the numbers of `confide plan`
plan_cli      `confide plan`
remembered    values that were computed before
scenarios/    run.toml files
benchmarks/   scripts, not shipped
"""
