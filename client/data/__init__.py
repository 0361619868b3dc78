"""Private records of an institution.

private_data    the one key to the records
records         read in our columns and the study's labels
units           records to units; train and validation
dataset_claims  each person in one dataset
line_check      lines that no round would use
"""
