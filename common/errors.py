"""The errors a user can meet. Each message names the thing, the value, the rule and the remedy.

ConfideError             exit 1   a check failed, a run stopped
├── InputError           exit 2   bad input: a configuration, a file, an option
└── PolicyError          exit 3   refused by an institution's policy
"""


class ConfideError(Exception):
    """A failure that is told to the user in one line, without a traceback."""

    exit_code = 1


class InputError(ConfideError):
    """Bad input: a key, a value, a file, a line, an option."""

    exit_code = 2


class PolicyError(ConfideError):
    """Too few institutions remain because of their policies."""

    exit_code = 3
