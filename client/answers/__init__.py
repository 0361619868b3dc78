"""Asks of the server and the answers to them, one file an ask.

app            Flower's ClientApp: messages in, messages out
agreement      is this the agreed run; is it allowed
proposed_runs  runs that wait for a person
offer          whether this institution takes part
answering      the way of every answer of a round: agreed to, charged, sealed
secure_round   the envelope of a share, then the masked share
round          an update, or validation counts
rehearsal      an update from made-up records; of a secure sum, masked zeros
finished       a finished adapter, checked and kept
"""
