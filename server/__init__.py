"""The coordinator's end: it asks, checks, averages, and writes down what happened.

app         Flower's ServerApp                 strategy       Flower's hooks: asks out, replies in
roster      who accepted the offer             rounds         sending, collecting, the deadline
aggregation one rule a file                    optimizer      what the average does to the adapter
checkpoint  a round on disk, atomically        run_directory  everything a run leaves behind
report      report.html                        progress       what a person sees meanwhile
"""
