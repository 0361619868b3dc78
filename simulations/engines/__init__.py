"""The same two apps as a deployment, in this process or on Ray.

federation  one run, in process
grid        the in-process Flower Grid, and where faults of an institution enter
ray         the same on Flower's Ray engine
"""
