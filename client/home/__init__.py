"""For the institution itself: what it learns of an adapter that came to it, and what it makes of it. None of it leaves.

Rooms to the left, which answer the server, cannot import this one, and read none of its files.

training    the rounds of a run, taken at home without noise
personal    an adapter of its own on top of the shared one
comparison  the ways to an adapter side by side, on the held-out share
page        the comparison as text and as a page
"""
