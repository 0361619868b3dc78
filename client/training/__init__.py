"""From units to a private update.

shares       records to units, kept for a run
held_out     a note of which units a run holds out
batches      units to micro-batches
prefixes     the frozen layers' outputs for the texts
operations   sizes of a model's operations
trial        every shape of a micro-batch, tried
tried_rows   the made-up rows of that trial
local_steps  the local steps of a round
validation   noised counts on the held-out share
made_up      a round without data
"""
