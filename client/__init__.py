"""The institution's side.

A record passes through data, training and answers. A charge passes through privacy, a message through service.

privacy/   The audited core at the institution: what is allowed, charged and released. Read it in this order.
data/      Private records of an institution.
site/      An installation on an institution's machine.
training/  From units to a private update.
answers/   Asks of the server and the answers to them, one file an ask.
service/   The process that takes part for months.
home/      For the institution itself: nothing of it leaves.
steward/   The institution as a person reads it and decides for it.
page/      `confide client page`: the same in a browser.
commands/  `confide client ...`.
config     site.toml
"""
