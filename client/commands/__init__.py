"""`confide client ...`.

cli                most commands, as typer declares them
enrolment_cli      `join`
looking_after_cli  `doctor`, `status`, `models list`
approval           what a person is told about a run
studies            offered, approved, opened, closed
ledger_report      the ledger as a person reads it
doctor             what keeps this institution from taking part
status             what a running client is doing
models             finished adapters, whole or not
"""
