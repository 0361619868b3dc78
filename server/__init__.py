"""The server's end.

A run passes through home, rounds, aggregation and results. A message passes through fleet. The daemon is the process.

home/         the folder of a server
aggregation/  the aggregation rules, one file each
rounds/       rounds: asks go out, answers come in, each round ends with an adapter
results/      the files that a run leaves behind
fleet/        Flower's fleet API on the public port, and the limits in front of it
daemon/       the server as a process that lives for months
page/         the server in a browser
commands/     the commands `confide server ...`
"""
