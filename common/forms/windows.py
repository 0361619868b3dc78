"""The part of a long text that is read."""

from collections.abc import Sequence
from typing import Any

from confide.common.errors import InputError


def require_fast(tokenizer: Any, kind: str) -> None:
    """Require a tokenizer that tells at which characters a token stands; a slow one is an `InputError`."""
    if not tokenizer.is_fast:
        name = type(tokenizer).__name__
        raise InputError(f"task.kind = {kind!r} needs a fast tokenizer, {name} is none; use another base")


def window_start(first: int, last: int, size: int, room: int) -> int:
    """Return the place at which to begin to read ``room`` of ``size`` places, with those from first to last amid them.

    Where these take more room, reading begins with the first of them.

    >>> window_start(6, 8, 20, 10), window_start(1, 3, 20, 10), window_start(3, 19, 20, 10), window_start(1, 3, 9, 10)
    (2, 0, 3, 0)
    """
    return max(0, min(first, (first + last - room) // 2, size - room))


def first_tokens(texts: Sequence[str], tokenizer: Any, max_length: int) -> dict[str, list[int]]:
    """Return the first tokens of one text or of two; of two the longer one is cut.

    With two texts ``token_type_ids`` say to which of them each token of ``input_ids`` belongs, if a tokenizer does.
    """
    encoded = tokenizer(*texts, truncation=True, max_length=max_length)
    names = ("input_ids", "token_type_ids") if len(texts) > 1 else ("input_ids",)
    return {name: list(encoded[name]) for name in names if name in encoded}


def fitting_text(text: str, tokenizer: Any, max_tokens: int) -> str:
    """Return the beginning of a text, at most so many tokens: of a question, so that what follows has room."""
    encoded = tokenizer(
        text, add_special_tokens=False, truncation=True, max_length=max_tokens, return_offsets_mapping=True
    )
    return text[: max((end for _, end in encoded["offset_mapping"]), default=0)]
