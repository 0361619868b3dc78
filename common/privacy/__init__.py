"""The audited core: one differentially private training step and its accounting. Pure: no files, no Flower.

Read in this order (each file stays under 150 lines):

    plan.py        the frozen plan that everything below reads
    coins.py       the cryptographic source of all private randomness
    sampling.py    the draw of the units that take part in a step
    layers.py      the layers that may be trained beside linear ones, and their gradients
    gradients.py   per-example gradients (Opacus)
    unit_means.py  the examples of a unit, averaged to one gradient
    clipping.py    the bound on the contribution of one unit
    noise.py       the Gaussian noise on the sum
    step.py        draw -> gradients -> clip -> sum -> noise -> normalise: the whole mechanism on one screen
    accounting.py  the epsilon of all steps of a plan
    least.py       a lower bound on it, in milliseconds, with which to refuse an absurd plan
    filter.py      the epsilon of several studies on the same people together
    statement.py   the meaning of an epsilon: the numbers of the privacy statement
    secure/        noise that several institutions share, as integers
"""
