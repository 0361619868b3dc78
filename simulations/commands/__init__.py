"""`confide simulate` and `confide plan`.

cli           `confide simulate`
plan_cli      `confide plan`
ending        the last lines of `confide simulate`
interruption  Ctrl-C and SIGTERM
"""
