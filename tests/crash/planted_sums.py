"""Bugs of secure sums that the crash test must find: changes of the product's text in the process of a client."""

import inspect
import sys
from types import ModuleType

from confide.client.privacy import rules, sum_release, sum_shares

_SENT = "sent = outbox.get(reservation.sum_file) if reservation.released"
_OTHER = "if reservation.released not in (None, request.statement_sha256)"
_WRITE = "outbox.put(reservation.sum_file, content)"
_UNRELEASED = "if any(item.released and item.key == share.key for item in everything):"
_ACCOUNTS = "enumerate(accounts(charges, cap, account.orders))"
# By name: modules, the right passage in each, and the wrong one.
CHANGES: dict[str, list[tuple[ModuleType, str, str]]] = {
    "release-after-the-write": [(sum_release, 'failpoint("before-release")', f'{_WRITE}; failpoint("sum-written")')],
    "forget-before-the-write": [(sum_release, _WRITE, f"shares.delete(reservation.share_file); {_WRITE}")],
    "keep-what-was-sent": [(sum_shares, "is_sent = ", "is_sent = False and ")],
    "keep-what-has-no-seal": [(sum_shares, "if item.sealed_sha256 is None or is_sent", "if is_sent")],
    "keep-what-is-passed": [(sum_shares, "(passed and item.released is None)", "False")],
    "mask-anew": [
        (sum_release, "held_share(reservation, shares))", "held_share(reservation, shares) if cap else urandom(96))"),
        (sum_release, "elif digest != reservation.released_sha256:", "elif False:"),
        (sum_release, "import hashlib\n", "import hashlib\nfrom os import urandom\n"),
    ],
    "two-statements": [
        (sum_release, f"{_OTHER}:", f"{_OTHER} and outbox.get(reservation.sum_file):"),
        (sum_release, _SENT, f"{_SENT} == request.statement_sha256"),
        (sum_release, "cap = None if reservation.released else", "cap ="),
        (rules, _UNRELEASED, "if False:"),
    ],
    "one-account": [(rules, _ACCOUNTS, _ACCOUNTS.replace("enumerate(", "enumerate([*").replace("))", ")][:1])"))],
}


def plant(bug: str) -> None:
    """Change the product in this process; what others imported of a changed module is changed there, too."""
    for module in {change[0] for change in CHANGES[bug]}:
        text, before = inspect.getsource(module), dict(vars(module))
        for changed, right, wrong in CHANGES[bug]:
            if changed is module:
                assert text.count(right) == 1, f"{module.__name__} has {text.count(right)} times {right!r}"
                text = text.replace(right, wrong)
        exec(compile(text, str(module.__file__), "exec"), vars(module))  # noqa: S102 - our own text
        _hand_on(module, before)


def _hand_on(module: ModuleType, before: dict[str, object]) -> None:
    for other in [value for name, value in sys.modules.items() if name.startswith(("confide.", "crash."))]:
        for name, value in list(vars(other).items()):
            if name in before and value is before[name] and callable(value):
                setattr(other, name, vars(module)[name])
