"""A whole federation on one machine, through the same ServerApp and ClientApp as a real one.

cli         `confide simulate`, `confide plan`   study         from a run.toml to a run directory
federation  one run, in process                  ray           the same on Flower's Ray engine
grid        the in-process Flower Grid           faults        what can go wrong, on purpose
texts       texts that packages carry            institutions  records -> private and public shares
partition   records -> institutions              sites         an institution's settings
baselines   the comparisons of a report          plan          what `confide plan` prints
rehearsal   real site files on this machine
scenarios/  run.toml files                       benchmarks/   scripts, not shipped
"""
