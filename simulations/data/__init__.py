"""Public texts, shared out to imagined institutions.

packaged      the files of an installed package
vader         rated texts of four kinds
questions     questions with types of their answers
tweets        tweets with marked names
names         people's names with their parts
dialogues     dialogues of two people
translations  screens of programs in English and Spanish
texts         all of these by name
partition     records to institutions
institutions  private and public shares of each
"""
