"""The process that takes part for months.

process        `confide client start`
link           the loop over Flower's fleet protocol
self_test      a check of the installed Flower
heartbeat      heartbeats that keep the connection
intake         a bound on received bytes
probe          one look at the server
reasons        reasons of refusals, for the client's own log
release_ticks  the times at which answers leave
running        the client's lock and its status file
"""
