"""The answer of a test on public or held-out records, and how far it can be trusted.

chance       intervals, and differences that are within chance
earlier      what a run that goes on from an adapter keeps of the earlier task
closer_look  everything about a finished adapter on public records: interval, classes, confusions, samples
"""
