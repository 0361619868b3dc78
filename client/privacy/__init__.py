"""The audited core at the institution: what is allowed, charged and released. Read it in this order.

policy       the institution's limits on a request
account      the sum of a ledger's rows
row_kinds    the effect of each kind of row
rules        conditions for opening a study, charging a round or letting a share leave
decision     policy, approval and budget in one answer
database     the file of a ledger
chain        rows of one dataset, hash-chained
terms        the first row of a ledger
ledger       the only way to add a row
outbox       answers on disk
release      RESERVE, make, SEAL, send, ACK
sum_checks   the statement of a secure sum, before a share leaves under it
sum_shares   the shares that are held between the two exchanges
sum_release  checks, RELEASE, send, forget the share
rollback     witnesses that notice an old copy
"""
