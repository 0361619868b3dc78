"""The institutions of a simulation.

simulated_sites  made-up settings, ledgers in one file
agreeing         their limits
real_sites       real site files on this machine
members          their keys in a secure sum
between_workers  a folder that worker processes share
unfinished       what an interrupted run keeps of them
"""
