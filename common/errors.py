"""The errors that a user can meet. Each message names the thing, the value, the rule and the remedy.

ConfideError             exit 1   a check failed, a run stopped
├── LedgerError          exit 1   a ledger is not whole
├── InputError           exit 2   bad input: a configuration, a file, an option
├── PolicyError          exit 3   refused by an institution's policy
└── BudgetError          exit 4   refused because the privacy budget does not allow it
"""


class ConfideError(Exception):
    """A failure that is told to the user in one line, without a traceback."""

    exit_code = 1


class LedgerError(ConfideError):
    """A ledger that is not whole: edited, cut, restored from an old copy, or unreadable."""


class InputError(ConfideError):
    """Bad input: a key, a value, a file, a line, an option."""

    exit_code = 2


class PolicyError(ConfideError):
    """An institution's policy refuses; or too few institutions remain because of their policies."""

    exit_code = 3


class BudgetError(ConfideError):
    """The budget of a dataset refuses; or too few institutions remain because of their budgets."""

    exit_code = 4
