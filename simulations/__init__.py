"""A whole federation on one machine, through the same ServerApp and ClientApp as a real one.

data/      Public texts, shared out to imagined institutions.
sites/     The institutions of a simulation.
engines/   The same two apps as a deployment, in this process or on Ray.
studies/   From a run.toml to numbers and to a run directory.
commands/  `confide simulate` and `confide plan`.

Beside them lie scenarios/ (run.toml files) and benchmarks/ (scripts, not shipped).
"""
