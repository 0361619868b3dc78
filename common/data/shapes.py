"""The shapes of micro-batches: few and public, so that all of them can be tried before private texts come.

A kernel may add in another order for another number of rows. That changes a last bit, which a server can amplify to a
whole clip norm (docs/guarantee.md). So the number of rows of a micro-batch does not follow the number that is there.
It has one of at most 32 shapes, which follow from public settings alone; missing rows are filled up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from confide.common.data.batches import padded_length

Shape = tuple[int, int]  # rows, and tokens of each row

MAX_SHAPES = 32
_SHORTEST = 16  # tokens; at 8 the kernels of some processors already differ from those of longer rows
# The cost of a micro-batch beside its tokens, in tokens that take as long (docs/decisions.md, "few public shapes").
_COST_OF_A_BATCH = 64
# The rows of a length's shapes, as parts of its full one. Of the parts that were tried these cost least on 20 short
# texts (docs/decisions.md, "smaller shapes").
_PARTS = ((1, 3, 6, 12), (1, 3, 9), (1, 3), (1,))


@dataclass(frozen=True)
class Shapes:
    """The numbers of rows that a micro-batch may have, for each padded length.

    A row stands beside rows of its own padded length only. In a longer micro-batch it would have more masked keys: with
    AVX-512 the backward pass of a softmax then adds in another order, for some rows and some weights alone, so that a
    trial of a few rows overlooked it (docs/decisions.md).

    Attributes:
        by_length: at least one number of rows for every padded length in increasing order; the fullest is first.
    """

    by_length: dict[int, tuple[int, ...]]

    def padded(self, num_tokens: int) -> int:
        """Return the padded length of a row of so many tokens: a function of the row alone.

        >>> Shapes({16: (4,), 24: (4,)}).padded(17)
        24
        """
        return next(length for length in self.by_length if length >= num_tokens)

    def all(self) -> list[Shape]:
        """Return every shape once.

        >>> Shapes({16: (4, 1), 24: (2,)}).all()
        [(1, 16), (2, 24), (4, 16)]
        """
        return sorted((rows, length) for length, counts in self.by_length.items() for rows in counts)

    def cover(self, lengths: list[int]) -> Iterator[tuple[Shape, int]]:
        """Cut rows of these padded lengths into micro-batches; for each length the cheapest cut is taken.

        Args:
            lengths: padded length of each row; equal ones stand together.

        Yields:
            A shape, and the number of next rows that it holds; the caller fills up its other rows.

        >>> list(Shapes({16: (4, 2), 24: (2,)}).cover([24, 16, 16, 16, 16, 16]))
        [((2, 24), 1), ((4, 16), 4), ((2, 16), 1)]
        """
        for length, rows in groupby(lengths):
            left = len(list(rows))
            for count in _cheapest(left, length, self.by_length[length]):
                yield (count, length), min(count, left)
                left -= count


def one_row_each(longest: int) -> Shapes:
    """Return shapes of one row, one for each length: slow, and by construction independent of other rows."""
    return Shapes(dict.fromkeys(_lengths(longest), (1,)))


def public_shapes(longest: int, tokens: int, max_rows: int) -> Shapes:
    """Return all shapes of a run, before they are tried.

    Each length has a full shape, of as many rows as ``tokens`` allow, and up to three smaller ones, as far as there are
    at most 32 in all.

    Args:
        longest: most tokens of a row (`[task] max_length`).
        tokens: bound on rows times tokens; a single row may be longer.
        max_rows: bound on rows.

    >>> public_shapes(24, 384, 16).by_length
    {16: (16, 4, 2, 1), 24: (16, 4, 2, 1)}
    """
    lengths = _lengths(longest)
    for parts in _PARTS:
        shapes = Shapes({length: _row_counts(min(max_rows, tokens // length), parts) for length in lengths})
        if len(shapes.all()) <= MAX_SHAPES:
            break
    return shapes


def _cheapest(rows: int, length: int, counts: tuple[int, ...]) -> list[int]:
    """Return the numbers of rows of the micro-batches that hold so many rows at the least cost, the fullest first."""
    costs, last = [0], [0]  # of the best cut of so many rows, and its last micro-batch
    for cut in range(1, rows + 1):
        prices = {count: count * length + _COST_OF_A_BATCH + costs[max(0, cut - count)] for count in counts}
        last.append(min(counts, key=lambda count: prices[count]))
        costs.append(prices[last[-1]])
    found = []
    while rows > 0:
        found.append(last[rows])
        rows -= last[rows]
    return sorted(found, reverse=True)


def _lengths(longest: int) -> list[int]:
    """Return padded lengths: multiples of 8 that grow by about a third, at most 25 of them up to 8,192 tokens."""
    last = padded_length(longest)
    lengths = [min(_SHORTEST, last)]
    while lengths[-1] < last:
        lengths.append(min(last, max(lengths[-1] + 8, lengths[-1] * 4 // 3 // 8 * 8)))
    return lengths


def _row_counts(most: int, parts: tuple[int, ...]) -> tuple[int, ...]:
    """Return numbers of rows: ``most`` over each part, above 4 a multiple of 4, on which most kernels agree."""
    counts = [max(1, most // part) for part in parts]
    return tuple(sorted({count - count % 4 if count > 4 else count for count in counts}, reverse=True))
