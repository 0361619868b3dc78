"""Curves, bars and squares as SVG: numbers alone, without styles of their own. Words stand around them in HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]
_FEW = 12  # values of a line that each get a dot


@dataclass(frozen=True)
class Line:
    """One line of a curve.

    Attributes:
        points: of both axes, in order.
        look: ``main``, ``second``, ``thin`` or ``limit`` of the stylesheet.
        steps: True for a line that stays on its value until the next point.
    """

    points: Points
    look: str = "main"
    steps: bool = False


def curve(lines: Sequence[Line], x: tuple[float, float], y: tuple[float, float], title: str) -> Markup:
    """Return lines in one frame, which stretches to any width.

    Args:
        lines: the last one lies on top.
        x: smallest and largest value of the horizontal axis.
        y: the same of the vertical one.
        title: the picture in words, for a screen reader.
    """
    drawn = [_path(line, x, y) + _dots(line, x, y) for line in lines if line.points]
    return _svg("", "0 0 100 100", title, drawn)


def bar(parts: Sequence[tuple[str, float]], most: float, title: str) -> Markup:
    """Return one bar of parts side by side, each with its look and its size, in a frame of size ``most``."""
    shapes, left = ['<rect class="all" width="100" height="10"/>'], 0.0
    for look, size in parts:
        width = max(0.0, min(100 - left, 100 * size / most)) if most else 0.0
        shapes.append(f'<rect class="{look}" x="{left:.3f}" width="{width:.3f}" height="10"/>')
        left += width
    return _svg(' class="bar"', "0 0 100 10", title, shapes)


def squares(share: float, title: str) -> Markup:
    """Return a hundred squares, of which a share between 0 and 1 is filled, rounded up to a tenth of a square.

    >>> squares(0.021, "2.1 of 100").count("found")
    2
    """
    tenths = min(1000, math.ceil(1000 * share))
    shapes = []
    for number in range(100):
        column, line = number % 20, number // 20
        look = ' class="found"' if number < tenths // 10 else ""
        shapes.append(f'<rect{look} x="{column + 0.1:.1f}" y="{line + 0.1:.1f}" width="0.8" height="0.8"/>')
        if number == tenths // 10 and tenths % 10:
            width = 0.08 * (tenths % 10)
            shapes.append(
                f'<rect class="part" x="{column + 0.1:.1f}" y="{line + 0.1:.1f}" width="{width:.2f}" height="0.8"/>'
            )
    return _svg(' class="squares"', "0 0 20 5", title, shapes, stretches=False)


def _path(line: Line, x: tuple[float, float], y: tuple[float, float]) -> str:
    placed = [(_place(one, x), 100 - _place(other, y)) for one, other in line.points]
    told, before = f"M{placed[0][0]:.2f} {placed[0][1]:.2f}", placed[0]
    for place in placed[1:]:
        told += f"H{place[0]:.2f}V{place[1]:.2f}" if line.steps else f"L{place[0]:.2f} {place[1]:.2f}"
        before = place
    if line.steps and before[0] < 100:
        told += "H100"
    return f'<path class="{line.look}" d="{told}"/>'


def _dots(line: Line, x: tuple[float, float], y: tuple[float, float]) -> str:
    """Return a dot at each value of a main line that has few of them; a value alone would not be seen otherwise."""
    if line.look != "main" or line.steps or len(line.points) > _FEW:
        return ""
    places = [(_place(one, x), 100 - _place(other, y)) for one, other in line.points]
    return "".join(f'<path class="dot" d="M{left:.2f} {top:.2f}h0"/>' for left, top in places)


def _place(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return 100 * (value - low) / (high - low) if high > low else 0.0


def _svg(attributes: str, box: str, title: str, shapes: Sequence[str], *, stretches: bool = True) -> Markup:
    stretch = ' preserveAspectRatio="none"' if stretches else ""
    opened = f'<svg{attributes} viewBox="{box}"{stretch} role="img" aria-label="{escape(title)}">'
    return Markup(f"{opened}{''.join(shapes)}</svg>")  # noqa: S704 - but for the title, numbers and looks of our own
