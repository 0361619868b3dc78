"""The process that takes part for months.

process        `confide client start`
link           the loop over Flower's fleet protocol
heartbeat      what keeps the connection
intake         a bound on what comes in
probe          one look at the server
reasons        why it declined, for its own log
release_ticks  when an answer leaves
running        its lock and its status file
"""
