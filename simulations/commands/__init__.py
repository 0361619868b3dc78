"""`confide simulate`, `confide plan`, `confide sweep`, `confide audit` and `confide doctor`.

cli           `confide simulate`
plan_cli      `confide plan`
sweep_cli     `confide sweep`
audit_cli     `confide audit`
doctor_cli    `confide doctor`
ending        the last lines of `confide simulate`
interruption  Ctrl-C and SIGTERM
"""
