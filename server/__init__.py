"""The coordinator's end.

A run goes through home, rounds, aggregation and results; a message through fleet; daemon is the process.

home/         A server's folder.
aggregation/  the aggregation rules, one file each
rounds/       Rounds: asks out, answers in, an adapter after each.
results/      What a run leaves behind.
fleet/        Flower's fleet API on the public port, and everything that stands before it.
daemon/       The server as a process that lives for months.
commands/     `confide server ...`.
"""
