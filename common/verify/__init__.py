"""`confide verify`, which imports none of our files but its own.

command        the command, and the ledgers that it is given
run_directory  the half that checks a run
approved       the run that has the stated hash
statements     the members of a run's secure sums
ledger         the half that checks a ledger's rows
findings       the findings of either
files          the files that are read
fields         the rule of each field
sharing        noise that institutions share
epsilon        its accountant
"""
