"""`confide simulate`, `confide plan` and `confide sweep`.

cli           `confide simulate`
plan_cli      `confide plan`
sweep_cli     `confide sweep`
ending        the last lines of `confide simulate`
interruption  Ctrl-C and SIGTERM
"""
