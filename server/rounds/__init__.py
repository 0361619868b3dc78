"""Rounds: asks go out, answers come in, each round ends with an adapter.

loop              Flower's ServerApp: the offer, one round after the other, the end
training_round    one training round
secure_round      one training round as a secure sum
statements        the members of each secure sum, kept
validation_round  one exchange of validation counts
run_context       the run, everything outside that it may touch, and its state
roster            institutions that accepted the offer
offer             the offer, before all rounds
newcomers         offers to institutions that connect later
participation     institutions that fit into one secure sum, and the draw for a round
round_asks        asks of a round
round_answers     replies of a round
collect           sending, waiting, the deadline
checkpoint        rounds on disk, saved atomically
resume            the round at which an interrupted run continues
"""
