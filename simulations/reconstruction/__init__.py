"""Attacks that bring back texts, labels and secrets from what leaves, on made-up records.

inversion  which tokens come back from LoRA's lowest layer
heads      which label and which text come back from a head's change
matching   which tokens come back by a search for the text whose gradient fits
exposure   secrets in training texts, ranked by the finished adapter
"""
