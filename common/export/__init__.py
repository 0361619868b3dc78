"""Finished adapters in PEFT's format.

write  an adapter to a folder that PEFT loads
load   an adapter from such a folder
card   the model card
"""
