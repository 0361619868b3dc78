"""An installation on an institution's machine.

installation  site.toml, ledger, outbox and keys, opened
enrolment     keys, a request, a kit
commitments   what ledgers know of keys and people
journal       errors, kept here, in files that rotate
"""
