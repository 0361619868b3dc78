"""An installation on an institution's machine.

installation  site.toml, ledger, outbox and keys, opened
enrolment     keys, a request, a kit
commitments   the ledgers' commitments to keys and people
journal       errors and refusals, kept here in files that rotate
"""
