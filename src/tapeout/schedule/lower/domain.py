"""The iteration domain of a kernel made simple: axes split until indices are linear, sorted by stride, merged where contiguous."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from tapeout.ir.affine import Affine, Axis, FloorDiv, Mod

Bind = dict[Axis, Affine]


class Domain:
    """How the axes of a kernel are expressed by simpler axes.

    Attributes:
        bind: Each axis of the kernel as an expression of the present axes (identity where it is missing).
    """

    def __init__(self, indices: Iterable[Affine]) -> None:
        """Start from the kernel's axes; `indices` are all index expressions (offsets, guards, index values)."""
        self._original = list(dict.fromkeys(i for i in indices if not i.is_constant))
        self.bind: Bind = {}
        self._refresh()

    def _refresh(self) -> None:
        self.indices = [i.substitute(self.bind) for i in self._original]

    def _rebind(self, step: Mapping[Axis, Affine], axes: Iterable[Axis]) -> None:
        for axis in axes:
            self.bind[axis] = self.bind.get(axis, Affine.of(axis)).substitute(step)
        self._refresh()

    def split(self, axes: Sequence[Axis], originals: Sequence[Axis]) -> list[Axis]:
        """Split axes that indices divide by a factor of their extent: `a -> a.0 * factor + a.1`, until none is left.

        Args:
            axes: The present axes.
            originals: The kernel's axes that they come from.

        Returns:
            The axes that take their place, in order.
        """
        out: list[Axis] = []
        pending = list(reversed(axes))
        while pending:
            axis = pending.pop()
            factors = self._divisors(axis)
            if not factors:
                out.append(axis)
                continue
            pieces = _pieces(axis, factors)
            self._rebind({axis: _mixed_radix(pieces)}, originals)
            pending.extend(reversed(pieces))
        return [a for a in out if a.extent > 1]

    def _divisors(self, axis: Axis) -> list[int]:
        """Return the chain of divisors by which the axis alone is divided, the smallest first."""
        found: set[int] = set()
        for index in self.indices:
            for atom in _atoms(index):
                if isinstance(atom, FloorDiv | Mod) and _only(atom.of, axis):
                    found.add(atom.by // _gcd(atom.by, atom.of.coefficient(axis)))
        chain: list[int] = []
        for by in sorted(found):
            last = chain[-1] if chain else 1
            if by > last and by % last == 0 and axis.extent % by == 0 and by < axis.extent:
                chain.append(by)
        return chain

    def merge(self, axes: Sequence[Axis], originals: Sequence[Axis]) -> list[Axis]:
        """Merge neighbours that are contiguous together in every index, the last one fastest."""
        out: list[Axis] = []
        for axis in axes:
            if not out or not self._contiguous(out[-1], axis):
                out.append(axis)
                continue
            outer = out.pop()
            joint = Axis(f"{outer.name}.{axis.name}", outer.extent * axis.extent)
            flat = Affine.of(joint)
            self._rebind({outer: flat // axis.extent, axis: flat % axis.extent}, originals)
            out.append(joint)
        return out

    def _contiguous(self, outer: Axis, inner: Axis) -> bool:
        for index in self.indices:
            for atom, _ in index.terms:
                if not isinstance(atom, Axis) and (outer in atom.of.axes or inner in atom.of.axes):
                    return False
            if index.coefficient(outer) != index.coefficient(inner) * inner.extent:
                return False
        return True


def sort_axes(axes: Sequence[Axis], offsets: Sequence[Affine]) -> list[Axis]:
    """Return axes from the slowest to the fastest in memory; `offsets` in order of importance, the first that moves decides."""

    def stride(axis: Axis) -> int:
        return next((abs(c) for o in offsets if (c := o.coefficient(axis))), 0)

    return sorted(axes, key=lambda a: -stride(a))


def _pieces(axis: Axis, factors: Sequence[int]) -> list[Axis]:
    bounds = [1, *factors, axis.extent]
    extents = [hi // lo for lo, hi in pairwise(bounds)]
    return [Axis(f"{axis.name}.{n}", e) for n, e in enumerate(reversed(extents))]


def _mixed_radix(pieces: Sequence[Axis]) -> Affine:
    flat = Affine()
    for piece in pieces:
        flat = flat * piece.extent + piece
    return flat


def _atoms(index: Affine) -> Iterable[object]:
    """Yield the atoms of an index, those inside divisions too; they nest only a few deep."""
    pending = [a for a, _ in index.terms]
    while pending:
        atom = pending.pop()
        yield atom
        if isinstance(atom, FloorDiv | Mod):
            pending.extend(a for a, _ in atom.of.terms)


def _only(index: Affine, axis: Axis) -> bool:
    return len(index.terms) == 1 and index.terms[0][0] == axis and index.const == 0


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return abs(a)
