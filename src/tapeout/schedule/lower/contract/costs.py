"""What memory costs around a contraction: copies of operands, operands that pass by, results that lie apart."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapeout.kernel.target import Target

LINE = 64
WAYS = 8
_SETS = 64
_LARGE = 16
"""Second-level caches that a copy fills before it has to go to memory."""

_COPY, _ACROSS = 0.5, 0.8
_BEYOND, _FAR = 0.45, 0.6
_NEXT, _LAST = 32.0, 12.0
_TURNED, _APART = 1.2, 3.0


def copying(elements: int, element: int, target: Target, *, across: bool) -> float:
    """Return the estimated cycles of copying so many elements; `across`: from one order of memory to another."""
    size = elements * element
    each = _ACROSS if across else _COPY
    each += (_BEYOND if size > target.l2 else 0.0) + (_FAR if size > _LARGE * target.l2 else 0.0)
    return elements * each


def fetch(size: int, target: Target) -> float:
    """Return the cycles that a byte takes to come from the cache that holds so many bytes, beyond the first level."""
    return 1 / (_NEXT if size <= target.l2 else _LAST)


def lines_held(stride: int) -> int:
    """Return how many lines at a distance of `stride` bytes the first-level cache holds."""
    step = stride // LINE if stride % LINE == 0 else 1
    return WAYS * (_SETS // gcd(step, _SETS))


def scattering(elements: int, lanes: int, stride: int, *, by_line: bool) -> float:
    """Return the estimated cycles of vectors whose lanes lie `stride` bytes from each other.

    Args:
        elements: All elements.
        lanes: Lanes of a vector.
        stride: Bytes from one to the next.
        by_line: Whether the rows of a tile are written line by line.
    """
    free, crowded = (_TURNED, 2 * _TURNED) if by_line else (_APART, 2 * _APART)
    return elements * (crowded if lines_held(stride) < lanes else free)
