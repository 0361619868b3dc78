"""The shapes of micro-batches: few and public, so that all of them can be tried before private texts come.

A kernel may add in another order for another number of rows. That changes a last bit, which a server can amplify to a
whole clip norm (docs/guarantee.md). So the number of rows of a micro-batch does not follow the number that is there.
It has one of at most 32 shapes, which follow from public settings alone; missing rows are filled up.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from confide.common.data.batches import padded_length

Shape = tuple[int, int]  # rows, and tokens of each row

MAX_SHAPES = 32
_SHORTEST = 16  # tokens; at 8 the kernels of some processors already differ from those of longer rows
# The cost of a micro-batch beside its tokens, in tokens that take as long (docs/decisions.md, "few public shapes").
_COST_OF_A_BATCH = 64


@dataclass(frozen=True)
class Shapes:
    """The shapes that rows of each padded length may take.

    Attributes:
        by_length: at least one shape, each at least as long, for every padded length in increasing order.
    """

    by_length: dict[int, tuple[Shape, ...]]

    def padded(self, num_tokens: int) -> int:
        """Return the padded length of a row of so many tokens: a function of the row alone.

        >>> Shapes({16: ((4, 16),), 24: ((4, 24),)}).padded(17)
        24
        """
        return next(length for length in self.by_length if length >= num_tokens)

    def all(self) -> list[Shape]:
        """Return every shape once."""
        return sorted({shape for shapes in self.by_length.values() for shape in shapes})

    def cover(self, lengths: list[int]) -> Iterator[tuple[Shape, int]]:
        """Cut rows of these padded lengths, the longest first, into micro-batches; the cheapest cut is taken.

        Args:
            lengths: padded length of each row, in decreasing order.

        Yields:
            A shape, and the number of next rows that it holds; the caller fills up its other rows.

        >>> list(Shapes({16: ((4, 16), (2, 24)), 24: ((2, 24),)}).cover([24, 16, 16, 16]))
        [((2, 24), 2), ((2, 24), 2)]
        """
        end = len(lengths)
        barred = dict.fromkeys(self.all(), end)  # the next row, from here on, that a shape may not hold
        costs, cuts = [0.0] * (end + 1), [((0, 0), end)] * (end + 1)
        for row in range(end - 1, -1, -1):
            usable = self.by_length[lengths[row]]
            barred.update((shape, row) for shape in barred if shape not in usable)
            ends = {shape: min(row + shape[0], barred[shape]) for shape in usable}
            prices = {(rows, tokens): rows * tokens + costs[ends[rows, tokens]] for rows, tokens in usable}
            best = min(usable, key=lambda shape: prices[shape])
            costs[row], cuts[row] = prices[best] + _COST_OF_A_BATCH, (best, ends[best])
        row = 0
        while row < end:
            shape, after = cuts[row]
            yield shape, after - row
            row = after


def one_row_each(longest: int) -> Shapes:
    """Return shapes of one row, one for each length: slow, and by construction independent of other rows."""
    return Shapes({length: ((1, length),) for length in _lengths(longest)})


def public_shapes(longest: int, tokens: int, max_rows: int) -> Shapes:
    """Return all shapes of a run, before they are tried.

    Rows of a padded length take shapes of that very length. In a longer one they would have more masked keys: with
    AVX-512 the backward pass of a softmax then adds in another order, for some rows and some weights alone, so that a
    trial of a few rows overlooked it (docs/decisions.md). Each length has a full shape, of as many rows as ``tokens``
    allow. If 32 shapes allow it, it has two smaller ones, of a half and a quarter of the rows.

    Args:
        longest: most tokens of a row (`[task] max_length`).
        tokens: bound on rows times tokens; a single row may be longer.
        max_rows: bound on rows.

    >>> public_shapes(24, 128, 8).by_length
    {16: ((8, 16), (4, 16), (2, 16)), 24: ((4, 24), (2, 24), (1, 24))}
    """
    lengths = _lengths(longest)
    for parts in ((1, 2, 4), (1, 2), (1,)):
        own = {length: _row_counts(min(max_rows, tokens // length), parts) for length in lengths}
        if sum(map(len, own.values())) <= MAX_SHAPES:
            break
    return Shapes({length: tuple((rows, length) for rows in own[length]) for length in lengths})


def _lengths(longest: int) -> list[int]:
    """Return padded lengths: multiples of 8 that grow by about a third, at most 25 of them up to 8,192 tokens."""
    last = padded_length(longest)
    lengths = [min(_SHORTEST, last)]
    while lengths[-1] < last:
        lengths.append(min(last, max(lengths[-1] + 8, lengths[-1] * 4 // 3 // 8 * 8)))
    return lengths


def _row_counts(most: int, parts: tuple[int, ...]) -> list[int]:
    """Return numbers of rows: ``most`` over each part, above 4 a multiple of 4, on which most kernels agree."""
    counts = [max(1, most // part) for part in parts]
    return sorted({count - count % 4 if count > 4 else count for count in counts}, reverse=True)
