"""The audited core at the institution: what is allowed, charged and released. Read it in this order.

policy     what the institution allows
account    what a ledger's rows amount to
row_kinds  what each kind of row does
rules      when a study may be opened or a round charged
decision   policy, approval and budget in one answer
chain      rows on disk, hash-chained
ledger     the only way to add a row
outbox     answers on disk
release    RESERVE, make, SEAL, send, ACK
rollback   witnesses that notice an old copy
"""
