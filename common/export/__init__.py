"""Finished adapters in PEFT's format.

write  a folder that PEFT loads
load   the way back
card   the model card
"""
