"""The same two apps as a deployment, in this process or on Ray.

federation  one run, in process
grid        the in-process Flower Grid
ray         the same on Flower's Ray engine
faults      faults of an institution, on purpose
"""
