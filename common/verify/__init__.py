"""`confide verify`, which imports none of our files but its own.

command  the command, and the half that checks a run
ledger   the half that checks a ledger's rows
fields   the rule of each field
sharing  noise that institutions share
epsilon  its accountant
"""
