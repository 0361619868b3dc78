"""A file of records as its owner should know it before a run: faults, doubles, hints. All of it is local.

form         columns, text and labels of a record, as the product reads them
findings     findings of checks, and the places that they name
broken       lines and records that no round would use
lengths      empty and long texts
duplicates   texts that are there twice or nearly so, also in a test file
shingles     signatures by which nearly equal texts are found
balance      labels and scores, by number
label_noise  labels that other records speak against
languages    languages and scripts
encodings    signs of a wrong encoding
identifiers  e-mail addresses, telephone numbers and the like
units        persons, and the records of each
check        all checks in one pass, and their report
page         the report as an HTML page
suggest      records to label next

A check is a class with two methods: `see` takes one record after the other, `findings` gives the result.
"""
