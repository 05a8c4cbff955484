"""Sliding sums by fewer products: a contraction over windows of three taps, as Winograd's F(2, 3) in two directions.

Where one factor is read at `slide + tap` in two places, `tap` of three points, four neighbouring elements of it take part in six products
along each direction; four products of sums of them do. So 16 products stand for 36:

    taps summed, slides kept (a convolution, its data gradient): 4 x 4 elements, 3 x 3 weights -> 2 x 2 results
    slides summed, taps kept (its weight gradient):              4 x 4 elements, 2 x 2 weights -> 3 x 3 results

In both, `products[u, v] = sum over the other summed axes of elements[u, v] * weights[u, v]`: 16 matrix products, between transforms that
add a few numbers. Everything here is on index maps and expressions of level T.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard, guards
from tapeout.kernel.compute import ContractionKernel, Expr, ExprBuilder, Index, Load, Store
from tapeout.schedule.lower.exprs import Rewriter, axes_of, loads, postorder, shared_load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tapeout.ir.dtype import DType

SIZE = 4
"""Elements of a tile along each direction."""
TAPS = 3

Axes = tuple[Axis, ...]
Line = list[Expr]
Square = list[list[Expr]]


@dataclass(frozen=True)
class Window:
    """A direction: the factor `a` is read at sums of `slide` and `tap`.

    Attributes:
        slide: Its axis of points.
        tap: Its axis of three taps.
        tile: Runs over pairs of points; the last one may have a single point.
    """

    slide: Axis
    tap: Axis
    tile: Axis

    @property
    def overhangs(self) -> bool:
        """Whether the last tile has a single point."""
        return self.slide.extent % 2 == 1


@dataclass(frozen=True)
class Windows:
    """A contraction over windows in two directions.

    Attributes:
        kernel: The contraction; its factor `a` is the one that is read in windows.
        first: The slower direction.
        second: The faster one.
        taps_kept: Whether taps are results and slides are summed: a weight gradient.
        rows: Axes of `a` and of results, slides and taps left out.
        columns: Axes of `b` and of results.
        k: Summed axes, slides and taps left out.
    """

    kernel: ContractionKernel
    first: Window
    second: Window
    taps_kept: bool
    rows: Axes
    columns: Axes
    k: Axes

    @property
    def tiles(self) -> Axes:
        """The axes over tiles."""
        return self.first.tile, self.second.tile

    @property
    def directions(self) -> tuple[Window, Window]:
        """Both directions."""
        return self.first, self.second

    @property
    def results(self) -> int:
        """How many results a tile has along each direction."""
        return TAPS if self.taps_kept else SIZE - TAPS + 1

    # -- transforms -------------------------------------------------------------------------------

    def elements(self, s: ExprBuilder, bind: Mapping[Axis, Affine]) -> Square:
        """Return the 16 transformed elements of a tile of `a`, zero beyond the windows."""
        found = [[self._element(s, bind, (i, j)) for j in range(SIZE)] for i in range(SIZE)]
        return _square(found, lambda x: _elements(s, x))

    def weights(self, s: ExprBuilder, bind: Mapping[Axis, Affine]) -> Square:
        """Return the 16 transformed weights (or cotangents) of a tile of `b`."""
        n, change = (2, _pair) if self.taps_kept else (TAPS, _weights)
        found = [[self._weight(s, bind, (i, j)) for j in range(n)] for i in range(n)]
        return _square(found, lambda x: change(s, x))

    def summed(self, s: ExprBuilder, products: Square) -> Square:
        """Return the results of a tile from its 16 products."""
        change = _taps if self.taps_kept else _points
        return _square(products, lambda x: change(s, x))

    def point(self, at: tuple[int, int], bind: Mapping[Axis, Affine]) -> dict[Axis, Affine]:
        """Return where the axes of results stand at one result of a tile."""
        if self.taps_kept:
            return {w.tap: Affine((), i) for w, i in zip(self.directions, at, strict=True)}
        return {
            w.slide: bind.get(w.tile, Affine.of(w.tile)) * 2 + i
            for w, i in zip(self.directions, at, strict=True)
        }

    def stages(
        self, s: ExprBuilder, at: tuple[int, int], bind: Mapping[Axis, Affine], result: Expr
    ) -> list[Store]:
        """Return the epilogue at one result of a tile."""
        point = {**bind, **self.point(at, bind)}
        rewrite = Rewriter(s, point, {"acc": result})
        return [
            replace(t, index=tuple(i.substitute(point) for i in t.index), value=rewrite(t.value))
            for t in self.kernel.stages
        ]

    def exists(self, at: tuple[int, int], bind: Mapping[Axis, Affine]) -> tuple[Guard, ...]:
        """Return the conditions under which a tile has a result: the last one may hang over."""
        if self.taps_kept:
            return ()
        point = self.point(at, bind)
        return guards(*(Guard(point[w.slide], 0, w.slide.extent) for w in self.directions))

    def _element(self, s: ExprBuilder, bind: Mapping[Axis, Affine], at: tuple[int, int]) -> Expr:
        point, where = dict(bind), []
        for w, i in zip(self.directions, at, strict=True):
            place = bind.get(w.tile, Affine.of(w.tile)) * 2 + i
            point[w.slide], point[w.tap] = place, Affine()
            where.append(Guard(place, 0, w.slide.extent + TAPS - 1))
        return _read(s, self.kernel.a, point, where, self.kernel.accumulate)

    def _weight(self, s: ExprBuilder, bind: Mapping[Axis, Affine], at: tuple[int, int]) -> Expr:
        point, where = dict(bind), []
        for w, i in zip(self.directions, at, strict=True):
            if not self.taps_kept:
                point[w.tap] = Affine((), i)
                continue
            point[w.slide] = bind.get(w.tile, Affine.of(w.tile)) * 2 + i
            where.append(Guard(point[w.slide], 0, w.slide.extent))
        return _read(s, self.kernel.b, point, where, self.kernel.accumulate)


def _read(
    s: ExprBuilder, operand: Expr, bind: Mapping[Axis, Affine], where: Sequence[Guard], to: DType
) -> Expr:
    """Return an operand with its axes replaced; zero where a guard fails."""
    needed = guards(*where)
    if not needed:
        return s.cast(Rewriter(s, bind, {})(operand), to)

    def guarded(e: Load) -> Expr:
        return shared_load(s, replace(e, where=(*e.where, *needed)))

    return s.cast(Rewriter(s, bind, {}, guarded)(operand), to)


# -- the transforms in one direction --------------------------------------------------------------------


def _square(x: Square, change: Callable[[Line], Line]) -> Square:
    """Transform down all columns, then along all rows."""
    columns = [change([row[j] for row in x]) for j in range(len(x[0]))]
    return [change(list(row)) for row in zip(*columns, strict=True)]


def _elements(s: ExprBuilder, x: Line) -> Line:
    return [s.sub(x[0], x[2]), s.add(x[1], x[2]), s.sub(x[2], x[1]), s.sub(x[1], x[3])]


def _weights(s: ExprBuilder, g: Line) -> Line:
    half = s.const(0.5, g[0].dtype)
    even, odd = s.mul(s.add(g[0], g[2]), half), s.mul(g[1], half)
    return [g[0], s.add(even, odd), s.sub(even, odd), g[2]]


def _pair(s: ExprBuilder, g: Line) -> Line:
    half = s.const(0.5, g[0].dtype)
    return [g[0], s.mul(s.add(g[0], g[1]), half), s.mul(s.sub(g[0], g[1]), half), g[1]]


def _points(s: ExprBuilder, m: Line) -> Line:
    return [s.add(m[0], s.add(m[1], m[2])), s.sub(s.sub(m[1], m[2]), m[3])]


def _taps(s: ExprBuilder, m: Line) -> Line:
    both = s.add(m[1], m[2])
    return [s.add(m[0], both), s.sub(m[1], m[2]), s.sub(both, m[3])]


# -- recognition ----------------------------------------------------------------------------------------


def find_windows(kernel: ContractionKernel) -> Windows | None:
    """Return the two directions in which a factor of a contraction is read in windows of three taps, None if there are no two.

    Loads of bf16 and f16 qualify too if sums are in f32; integers do not, and neither do several contractions at once (groups).
    """
    if not kernel.accumulate.is_float or any(a.extent > 1 for a in kernel.batch):
        return None
    swapped = replace(kernel, m=kernel.n, n=kernel.m, a=kernel.b, b=kernel.a)
    found = [w for k in (kernel, swapped) for kept in (False, True) if (w := _windows(k, kept))]
    return max(found, key=_points_of, default=None)


def _points_of(w: Windows) -> int:
    return w.first.slide.extent * w.second.slide.extent


def _windows(kernel: ContractionKernel, taps_kept: bool) -> Windows | None:
    if not _moves_plainly(kernel.a):
        return None
    kernel = _forward(kernel)
    taps, slides = (kernel.m, kernel.k) if taps_kept else (kernel.k, kernel.m)
    pairs: list[Window] = []
    used: set[Axis] = set()
    for tap, slide in _longest_first(taps, slides):
        if tap in used or slide in used or not _slides(kernel.a, slide, tap):
            continue
        used |= {tap, slide}
        tile = Axis(f"{slide.name}.tile", -(-slide.extent // 2))
        pairs.append(Window(slide, tap, tile))
    if len(pairs) < 2:
        return None
    first, second = sorted(pairs[:2], key=lambda w: slides.index(w.slide))
    used = {x for w in (first, second) for x in (w.slide, w.tap)}
    rows, k = (tuple(a for a in axes if a not in used) for axes in (kernel.m, kernel.k))
    return Windows(kernel, first, second, taps_kept, rows, kernel.n, k)


def _forward(kernel: ContractionKernel) -> ContractionKernel:
    """Return a contraction with the taps turned round that its factor `a` reads backwards."""
    found = [i for e in loads(kernel.a) for i in e.index if isinstance(i, Affine)]
    taps = [a for a in (*kernel.k, *kernel.m) if a.extent == TAPS]
    bind = {a: Affine.of(a) * -1 + (TAPS - 1) for a in taps if _backwards(found, a)}
    if not bind:
        return kernel
    rewrite = Rewriter(ExprBuilder(), bind, {})
    stages = tuple(
        replace(t, index=tuple(i.substitute(bind) for i in t.index), value=rewrite(t.value))
        for t in kernel.stages
    )
    return replace(kernel, a=rewrite(kernel.a), b=rewrite(kernel.b), stages=stages)


def _backwards(found: Sequence[Affine], axis: Axis) -> bool:
    steps = [i.coefficient(axis) for i in found]
    return min(steps, default=0) < 0 and max(steps) <= 0


def _longest_first(taps: Axes, slides: Axes) -> Iterator[tuple[Axis, Axis]]:
    """Yield (tap, slide): the directions with most points first."""
    pairs = product([a for a in taps if a.extent == TAPS], [a for a in slides if a.extent > 1])
    yield from sorted(pairs, key=lambda p: -p[1].extent)


def _moves_plainly(operand: Expr) -> bool:
    """Whether an operand depends on axes through the indices of its loads alone."""
    for e in postorder(operand):
        if isinstance(e, Index):
            return False
        if isinstance(e, Load) and not all(isinstance(i, Affine) for i in e.index):
            return False
    return bool(loads(operand))


def _slides(operand: Expr, slide: Axis, tap: Axis) -> bool:
    """Whether an operand reads one place for equal sums of two axes."""
    if not {slide, tap} <= axes_of([operand]):
        return False
    for e in loads(operand):
        for i in (*e.index, *(g.index for g in e.where)):
            assert isinstance(i, Affine)
            inside = {a for atom, _ in i.terms if not isinstance(atom, Axis) for a in atom.of.axes}
            if i.coefficient(slide) != i.coefficient(tap) or {slide, tap} & inside:
                return False
    return True
