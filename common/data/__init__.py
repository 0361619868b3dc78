"""Texts, from files to tensors.

records  files and folders of texts as checked records
lines    JSONL, CSV and TSV
tables   Parquet and saved datasets
batches  examples as tensors
shapes   the public shapes of micro-batches
"""
