"""The audited core: one differentially private training step and its accounting. Pure: no files, no Flower.

Read in this order (each file stays under 150 lines):

    plan.py        the frozen plan that everything below reads
    coins.py       the cryptographic source of all private randomness
    sampling.py    which units take part in a step
    gradients.py   per-example gradients (Opacus), averaged to one gradient per unit
    clipping.py    the bound on what one unit can contribute
    noise.py       the Gaussian noise on the sum
    step.py        draw -> gradients -> clip -> sum -> noise -> normalise: the whole mechanism on one screen
    accounting.py  what all steps of a plan cost
    least.py       the least that they can cost, in milliseconds, to refuse an absurd plan by
    filter.py      what several studies on the same people cost together
    statement.py   what an epsilon means: the numbers of the privacy statement
"""
