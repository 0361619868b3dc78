"""Federations from Python: what `confide simulate`, `confide plan` and `confide predict` do, as functions.

calls    simulate, plan, predict, evaluate
sweep    a search for settings (the extra `sweep`)
given    a run and records as a caller gives them
shown    a run carried out with its progress on a terminal or in a notebook
result   a finished run
"""
