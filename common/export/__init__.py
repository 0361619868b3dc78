"""Finished adapters in PEFT's format.

write     an adapter to a folder that PEFT loads
load      an adapter from such a folder
start     the values that a run begins with
personal  the mark of an adapter that never leaves
merge     a base with the adapter in its weights
card      the model card
"""
