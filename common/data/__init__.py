"""Texts, from files to tensors.

records  files of texts as checked records
tables   Parquet and saved datasets
batches  examples as tensors
shapes   the public shapes of micro-batches
"""
