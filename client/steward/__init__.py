"""The institution as a person reads it and decides for it, by a command or in a browser.

approval       a run as a person reads and approves it
offers         the runs that were offered; a person's no
shared_noise   each epsilon with its condition, and the members to compare
studies        offered, approved, opened, closed
budget         the budget before and after a run
ledger_report  the ledger as a person reads it
history        the spend over time
status         the state of a client
pausing        pause, and its end
"""
