"""Quasi-affine index expressions: sums of axes times numbers, with floor division and remainder.

Index maps of operations, loads of kernels and layouts all speak this language. Arithmetic simplifies with the
extents of the axes, so that `(i*16 + j) // 16` is `i` when `j` stays below 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True, order=True)
class Axis:
    """A loop variable that runs over `0 .. extent-1`."""

    name: str
    extent: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class FloorDiv:
    """`of // by`, rounding down; `by` is positive."""

    of: Affine
    by: int

    def __str__(self) -> str:
        return f"({self.of})//{self.by}"


@dataclass(frozen=True, slots=True, order=True)
class Mod:
    """`of mod by`, never negative; `by` is positive."""

    of: Affine
    by: int

    def __str__(self) -> str:
        return f"({self.of})%{self.by}"


Atom = Axis | FloorDiv | Mod


def _key(atom: Atom) -> tuple[str, str]:
    if isinstance(atom, Axis):
        return ("Axis", atom.name)
    return (type(atom).__name__, str(atom))


@dataclass(frozen=True, order=True)
class Affine:
    """`const + sum(coefficient * atom)`; terms are sorted and have no zero coefficient."""

    terms: tuple[tuple[Atom, int], ...] = ()
    const: int = 0

    @classmethod
    def of(cls, x: Affine | Axis | int) -> Affine:
        """Return an axis or a number as an index expression."""
        if isinstance(x, Affine):
            return x
        if isinstance(x, Axis):
            # An axis of one step stands at 0: dropping it here keeps strides of size-1 dimensions out of every map.
            return cls() if x.extent == 1 else cls(((x, 1),))
        return cls((), int(x))

    @classmethod
    def make(cls, terms: Mapping[Atom, int], const: int) -> Affine:
        """Return the canonical form of a mapping of atoms to coefficients."""
        kept = [(a, c) for a, c in terms.items() if c]
        if len(kept) > 1:
            kept.sort(key=_term_key)
        return cls(tuple(kept), const)

    def __add__(self, other: Affine | Axis | int) -> Affine:
        other = Affine.of(other)
        # Most sums add a number or start from zero: nothing to sort or to recombine.
        if not other.terms:
            return Affine(self.terms, self.const + other.const) if other.const else self
        if not self.terms:
            return Affine(other.terms, self.const + other.const) if self.const else other
        terms = dict(self.terms)
        for atom, c in other.terms:
            terms[atom] = terms.get(atom, 0) + c
        return _recombined(terms, self.const + other.const)

    def __sub__(self, other: Affine | Axis | int) -> Affine:
        return self + Affine.of(other) * -1

    def __mul__(self, factor: int) -> Affine:
        factor = int(factor)
        if factor == 1:
            return self
        if factor == 0:
            return Affine()
        return Affine(tuple((a, c * factor) for a, c in self.terms), self.const * factor)

    def __floordiv__(self, by: int) -> Affine:
        """Return `self // by` rounded down, simplified by ranges."""
        by = int(by)
        if by == 1:
            return self
        whole, rest = self._split(by)
        lo, hi = rest.range
        if lo // by == hi // by:
            return whole + lo // by
        return whole + Affine(((FloorDiv(rest, by), 1),))

    def __mod__(self, by: int) -> Affine:
        """Return `self mod by` (never negative), simplified by ranges."""
        by = int(by)
        if by == 1:
            return Affine()
        _, rest = self._split(by)
        lo, hi = rest.range
        if lo // by == hi // by:
            return rest - (lo // by) * by
        return Affine(((Mod(rest, by), 1),))

    def _split(self, by: int) -> tuple[Affine, Affine]:
        """Return (whole, rest) with `self == whole * by + rest`."""
        whole = {a: c // by for a, c in self.terms if c % by == 0}
        rest = {a: c for a, c in self.terms if c % by != 0}
        return Affine.make(whole, self.const // by), Affine.make(rest, self.const % by)

    @cached_property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value over the axes (a safe bound where atoms repeat an axis)."""
        lo = hi = self.const
        for atom, c in self.terms:
            a, b = _atom_range(atom)
            lo += min(a * c, b * c)
            hi += max(a * c, b * c)
        return lo, hi

    @property
    def is_constant(self) -> bool:
        """Whether no axis takes part."""
        return not self.terms

    @cached_property
    def is_linear(self) -> bool:
        """Whether only plain axes take part, no division or remainder."""
        return all(isinstance(a, Axis) for a, _ in self.terms)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """Every axis that takes part, in order of name, those inside divisions included."""
        found: dict[Axis, None] = {}
        for atom, _ in self.terms:
            for axis in (atom,) if isinstance(atom, Axis) else atom.of.axes:
                found[axis] = None
        return tuple(sorted(found))

    def coefficient(self, axis: Axis) -> int:
        """Return the factor of a plain axis, 0 if it takes no part as such."""
        return next((c for a, c in self.terms if a == axis), 0)

    def substitute(self, bind: Mapping[Axis, Affine]) -> Affine:
        """Return the expression with axes replaced by expressions."""
        if not any(a in bind for a in self.axes):
            return self
        terms: dict[Atom, int] = {}
        const = self.const
        for atom, c in self.terms:
            if isinstance(atom, Axis):
                found = bind.get(atom)
                if found is None:
                    terms[atom] = terms.get(atom, 0) + c
                    continue
                part = found
            elif isinstance(atom, FloorDiv):
                part = atom.of.substitute(bind) // atom.by
            else:
                part = atom.of.substitute(bind) % atom.by
            const += part.const * c
            for a, d in part.terms:
                terms[a] = terms.get(a, 0) + c * d
        return _recombined(terms, const)

    def evaluate(self, values: Callable[[Axis], int]) -> int:
        """Return the number at given axis values."""
        total = self.const
        for atom, c in self.terms:
            if isinstance(atom, Axis):
                total += c * values(atom)
            elif isinstance(atom, FloorDiv):
                total += c * (atom.of.evaluate(values) // atom.by)
            else:
                total += c * (atom.of.evaluate(values) % atom.by)
        return total

    def __str__(self) -> str:
        parts = [f"{atom}" if c == 1 else f"{c}*{atom}" for atom, c in self.terms]
        if self.const or not parts:
            parts.append(str(self.const))
        return " + ".join(parts)


def _atom_range(atom: Atom) -> tuple[int, int]:
    if isinstance(atom, Axis):
        return 0, max(atom.extent - 1, 0)
    lo, hi = atom.of.range
    if isinstance(atom, FloorDiv):
        return lo // atom.by, hi // atom.by
    return 0, min(atom.by - 1, hi) if lo >= 0 else atom.by - 1


def _term_key(term: tuple[Atom, int]) -> tuple[str, str]:
    return _key(term[0])


def _recombined(terms: Mapping[Atom, int], const: int) -> Affine:
    """Return the canonical form of terms, divisions and remainders of one expression recombined."""
    made = Affine.make(terms, const)
    return made if made.is_linear else _recombine(made)


def _recombine(x: Affine) -> Affine:
    """Fold `k*(e // n)*n + k*(e % n)` back into `k*e`."""
    terms = dict(x.terms)
    for atom, c in x.terms:
        if not isinstance(atom, Mod):
            continue
        whole = FloorDiv(atom.of, atom.by)
        if terms.get(whole) == c * atom.by:
            del terms[whole], terms[atom]
            return Affine.make(terms, x.const) + atom.of * c
    return x


@dataclass(frozen=True, slots=True, order=True)
class Guard:
    """The condition `lo <= index < hi` under which an element exists (padding, holes of a stride)."""

    index: Affine
    lo: int
    hi: int

    @property
    def always(self) -> bool:
        """Whether the ranges of the axes prove the condition."""
        lo, hi = self.index.range
        return self.lo <= lo and hi < self.hi

    def substitute(self, bind: Mapping[Axis, Affine]) -> Guard:
        """Return the guard with axes replaced."""
        return Guard(self.index.substitute(bind), self.lo, self.hi)

    def __str__(self) -> str:
        return f"{self.lo} <= {self.index} < {self.hi}"


def guards(*found: Guard) -> tuple[Guard, ...]:
    """Return the guards that ranges do not prove, each once."""
    return tuple(dict.fromkeys(g for g in found if not g.always))


def linearize(index: Sequence[Affine], shape: Sequence[int]) -> Affine:
    """Return the row-major element number of an index into `shape`."""
    flat = Affine()
    for i, n in zip(index, shape, strict=True):
        flat = flat * int(n) + i
    return flat


def delinearize(flat: Affine, shape: Sequence[int]) -> tuple[Affine, ...]:
    """Return the index into `shape` of a row-major element number."""
    out: list[Affine] = []
    for n in reversed(tuple(shape)):
        out.append(flat % int(n))
        flat = flat // int(n)
    return tuple(reversed(out))


def index_of(axes: Iterable[Axis]) -> tuple[Affine, ...]:
    """Return plain axes as an index."""
    return tuple(Affine.of(a) for a in axes)
