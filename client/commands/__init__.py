"""`confide client ...`.

cli                most commands, as typer declares them
enrolment_cli      `join`
looking_after_cli  `doctor`, `status`, `models list`
data_cli           `confide data ...`
at_home_cli        `evaluate`, `personalise`
at_home            their work, on an institution's own records
approval           a run as a person reads and approves it
shared_noise       each epsilon with its condition, and the members to compare
studies            offered, approved, opened, closed
ledger_report      the ledger as a person reads it
doctor             obstacles to taking part
status             the state of a client
models             finished adapters, whole or not
"""
