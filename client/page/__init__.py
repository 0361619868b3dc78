"""`confide client page`: the institution in a browser, for whoever decides and does not use a terminal.

It decides nothing of its own: each button does what the command of that name does, with the same row in the ledger.

institution  the pages, and the forms that change something
overview     the facts of the first page
request      a run that asks for approval, in plain words
words        kinds of task and spans of time, in plain words
"""
