"""The audit: attacks on what the guarantee promises, on made-up records.

bounds     lower bounds on epsilon from guesses
canaries   units whose gradient is chosen, and a model that has no other
rounds     rounds on canaries by the code that clients run, as observers see them
observers  scores and guesses of an attacker
verdicts   what was found, beside what is stated
mechanism  the audit of a locked run with canaries
membership  who was trained on, by the loss of a finished adapter
inversion  which tokens come back from what leaves in one round
heads      which label and which text come back from a head's change
matching   which tokens come back by a search for the text whose gradient fits
exposure   secrets in training texts, ranked by the finished adapter
gate       the audit as a server asks for it
page       the page audit.html
"""
