"""The audit: attacks on what the guarantee promises, on made-up records.

bounds         lower bounds on epsilon from guesses
canaries       units whose gradient is chosen, and a model that has no other
rounds         rounds on canaries by the code that clients run, as observers see them
observers      scores and guesses of an attacker
verdicts       what was found, beside what is stated
mechanism      the audit of a locked run with canaries
text_canaries  made-up records in a run, and guesses who was in
lira           the likelihood-ratio attack on losses
shadows        a finished run again, on random halves of its units
membership     who was trained on, by the loss of a finished adapter
gate           the audit as a server asks for it
page           the page audit.html
"""
