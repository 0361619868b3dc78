"""Rounds: asks out, answers in, an adapter after each.

app            Flower's ServerApp
strategy       one round after the other
run_context    what a run is given
roster         who accepted the offer
offer          the offer, before all rounds
newcomers      offers to those who come later
participation  whom a round asks
round_asks     what a round sends
round_answers  what came in of a round
collect        sending, waiting, the deadline
checkpoint     a round on disk, atomically
resume         where an interrupted run goes on
"""
