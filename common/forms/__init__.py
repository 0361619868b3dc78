"""Forms in which files hold texts and answers: their faults, and how answers are compared.

texts          plain texts, and made-up ones
windows        the part of a long text that is read
labels         labels as files write them, and how they are counted
entities       names in a text as tags, and how they are counted
marks          two marked names in a text
answers        passages of a context, and how they are compared
rankings       candidates for a query, and how their order is compared
conversations  prompts and messages, and the parts of them that a model learns to write
"""
