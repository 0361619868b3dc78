"""The coordinator's end: it asks, checks, averages, and writes down what happened.

app         Flower's ServerApp                 strategy       Flower's hooks: asks out, replies in
roster      who accepted the offer             rounds         sending, collecting, the deadline
aggregation one rule a file                    optimizer      what the average does to the adapter
checkpoint  a round on disk, atomically        run_directory  everything a run leaves behind
report      report.html                        progress       what a person sees meanwhile
job         what a strategy is given           facts          what report and card are told
offer       of a run, before its rounds        answers        what came in of a round
resume      where an interrupted run goes on

The server as a process:

cli         `confide server ...`               daemon         the public port, the admin port, the worker
home        a server's folder                  queue          runs, one at a time
registry    who may take part                  certificates   its own authority
fleet_app   Flower's web application           fleet_gate     what the public port serves
superlink   Flower's state, and a Grid on it   connections    how many, and how long without a request
jobs        one run, from queue to results     workshop       the child that has torch
admin       the admin port                     logs           JSON lines
rehearsal   one round without data             clients        who is approved, asked, and waits
bodies      how much requests may bring        participation  whom a round asks
"""
