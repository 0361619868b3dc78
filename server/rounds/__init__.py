"""Rounds: asks go out, answers come in, each round ends with an adapter.

app            Flower's ServerApp
strategy       one round after the other
run_context    the run and everything outside that it may touch
roster         institutions that accepted the offer
offer          the offer, before all rounds
newcomers      offers to institutions that connect later
participation  the draw of institutions for a round
round_asks     asks of a round
round_answers  replies of a round
collect        sending, waiting, the deadline
checkpoint     rounds on disk, saved atomically
resume         the round at which an interrupted run continues
"""
