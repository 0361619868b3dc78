"""`confide simulate`, `confide plan`, `confide sweep` and `confide audit`.

cli           `confide simulate`
plan_cli      `confide plan`
sweep_cli     `confide sweep`
audit_cli     `confide audit`
ending        the last lines of `confide simulate`
interruption  Ctrl-C and SIGTERM
"""
