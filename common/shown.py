"""Text that others chose, made safe to show in a log, a terminal or a file of ours."""

_MOST = 500  # characters: enough for any message of ours


def shown(text: object, most: int = _MOST) -> str:
    r"""Return the text as one line of at most ``most`` characters, all of them visible; the middle is left out.

    A server that can write newlines and escapes into a log can forge its lines, and control the terminal that shows it.

    >>> shown("round 1\x1b[2J\nround 2: \u202eall is well")
    'round 1\\x1b[2J\\nround 2: \\u202eall is well'
    >>> shown("a" * 1000 + "the remedy", 60)
    'aaaaaaaaaaaa[986 characters left out]aathe remedy'
    """
    whole = str(text)
    if len(whole) <= most and len(line := _visible(whole)) <= most:
        return line
    half = max(0, most - 36) // 2  # room for the words between
    head, tail = _visible(whole[:half])[:half], _visible(whole[-half:])[-half:] if half else ""
    return f"{head}[{max(0, len(whole) - 2 * half)} characters left out]{tail}"


def _visible(text: str) -> str:
    """Return the text with every character that would not print as Python's escape of it."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
