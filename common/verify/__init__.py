"""`confide verify`, which imports nothing of ours but its own files.

command  the command, and the half that checks a run
ledger   the half that checks a ledger's rows
epsilon  its accountant
"""
