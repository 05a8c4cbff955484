"""Random small graphs of primitives, for properties of every stage that reads graphs."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f32, f64, i64
from tapeout.ir.graph import Graph, Value
from tapeout.ir.type import TensorType
from tapeout.ops.composite.index import scatter_along, scatter_rows
from tapeout.ops.running import CumSum, Recurrence
from tapeout.ops.sym import Sym, constant, iota
from tapeout.support.loc import Loc

Array = np.ndarray[Any, Any]


@dataclass
class Case:
    """A graph with arrays to run it on."""

    graph: Graph
    inputs: dict[str, Array] = field(default_factory=dict)
    variables: dict[str, Array] = field(default_factory=dict)

    def __repr__(self) -> str:
        return str(self.graph)


@st.composite
def cases(draw: st.DrawFn, steps: int = 12, updates: bool = True) -> Case:
    """Draw a graph of up to `steps` operations over small tensors of f64 (and some i64, bool)."""
    made = _Maker(draw)
    for _ in range(draw(st.integers(1, steps))):
        made.grow()
    return made.finish(updates)


class _Maker:
    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.b = Builder("random")
        self.case = Case(self.b.graph())
        self.rng = np.random.default_rng(draw(st.integers(0, 1000)))
        self.pool: list[Sym] = []
        for i in range(draw(st.integers(1, 2))):
            self._input(f"x{i}")
        for i in range(draw(st.integers(0, 2))):
            self._variable(f"w{i}")

    def _shape(self, least: int = 0, most: int = 4) -> tuple[int, ...]:
        sizes = st.sampled_from([1, 2, 3, 4, 5])
        return tuple(self.draw(st.lists(sizes, min_size=least, max_size=most)))

    def _input(self, name: str, shape: tuple[int, ...] | None = None) -> Sym:
        shape = self._shape(1) if shape is None else shape
        x = Sym(self.b, self.b.add_input(name, TensorType(f64, shape)))
        self.case.inputs[name] = np.asarray(self.rng.integers(-8, 9, shape) / 4.0)
        self.pool.append(x)
        return x

    def _variable(self, name: str, shape: tuple[int, ...] | None = None) -> Sym:
        shape = self._shape(0, 3) if shape is None else shape
        w = Sym(self.b, self.b.add_variable(name, TensorType(f64, shape)))
        self.case.variables[name] = np.asarray(self.rng.integers(-8, 9, shape) / 4.0)
        self.pool.append(w)
        return w

    def pick(self) -> Sym:
        # Late values are read more often, so that chains grow.
        recent = self.pool[-4:]
        return self.draw(st.sampled_from(recent if self.draw(st.booleans()) else self.pool))

    def grow(self) -> None:
        """Append one operation (or a few that belong together)."""
        step = self.draw(st.sampled_from(_STEPS))
        x = self.pick()
        if x.type.size > 400:
            x = x.sum(list(range(1, x.rank)))
        y = step(self, x)
        if y is not None and y.type.size and y.type.size <= 4000:
            self.pool.append(y)

    def finish(self, updates: bool) -> Case:
        values = [s for s in self.pool if s.value.node is not None] or self.pool
        chosen = self.draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
        for i, s in enumerate([values[-1], *chosen]):
            self.b.set_output(f"y{i}", s.value)
        for v in list(self.b.graph().variables) if updates else ():
            self._update(v.name, v.value)
        self.case.graph = self.b.graph()
        return self.case

    def _update(self, name: str, value: Value) -> None:
        how = self.draw(st.sampled_from(["none", "formula", "other", "same"]))
        w = Sym(self.b, value)
        with self.b.at(Loc("", name, "update")):
            if how == "same":
                self.b.set_update(name, value)
            fitting = [s for s in self.pool if s.type == w.type]
            if how == "other":
                self.b.set_update(name, self.draw(st.sampled_from(fitting)).value)
            if how == "formula":
                g = self.draw(st.sampled_from(fitting))
                self.b.set_update(name, (w * 0.5 - g * g.sum().broadcast_to(w.shape)).value)


def _axes(m: _Maker, x: Sym, least: int = 1) -> list[int]:
    count = m.draw(st.integers(min(least, x.rank), x.rank))
    return sorted(m.draw(st.permutations(range(x.rank)))[:count])


def _unary(m: _Maker, x: Sym) -> Sym:
    name = m.draw(st.sampled_from(["neg", "abs", "relu", "tanh", "square", "sign", "floor"]))
    return getattr(x, name)() if name != "neg" else -x


def _binary(m: _Maker, x: Sym) -> Sym:
    other = m.pick()
    if other.shape != x.shape:
        fits = [s for s in m.pool if s.shape == x.shape] or [x]
        other = m.draw(st.sampled_from(fits))
    name = m.draw(st.sampled_from(["add", "sub", "mul", "max"]))
    return {"add": x + other, "sub": x - other, "mul": x * other, "max": x.maximum(other)}[name]


def _scaled(m: _Maker, x: Sym) -> Sym:
    return x * m.draw(st.sampled_from([0.5, -1.0, 2.0])) + 1.0


def _masked(m: _Maker, x: Sym) -> Sym:
    return (x > 0.25).where(x, m.draw(st.sampled_from([0.0, -1.0])))


def _casts(m: _Maker, x: Sym) -> Sym:
    return (x > 0).cast(i64).cast(f64) + x.cast(f32).cast(f64)


def _transpose(m: _Maker, x: Sym) -> Sym:
    return x.transpose(m.draw(st.permutations(range(x.rank))))


def _reshape(m: _Maker, x: Sym) -> Sym:
    if m.draw(st.booleans()) or x.rank < 2:
        return x.reshape([-1]) if m.draw(st.booleans()) else x.reshape([*x.shape[:1], -1, 1])
    at = m.draw(st.integers(0, x.rank - 2))
    return x.reshape([*x.shape[:at], x.shape[at] * x.shape[at + 1], *x.shape[at + 2 :]])


def _split(m: _Maker, x: Sym) -> Sym | None:
    at = [d for d, n in enumerate(x.shape) if n % 2 == 0]
    if not at:
        return None
    d = m.draw(st.sampled_from(at))
    return x.reshape([*x.shape[:d], 2, x.shape[d] // 2, *x.shape[d + 1 :]])


def _broadcast(m: _Maker, x: Sym) -> Sym:
    at = m.draw(st.integers(0, x.rank))
    shape = (*x.shape[:at], m.draw(st.integers(1, 3)), *x.shape[at:])
    return x.broadcast(shape, [d for d in range(len(shape)) if d != at])


def _slice(m: _Maker, x: Sym) -> Sym:
    starts = [m.draw(st.integers(0, n - 1)) for n in x.shape]
    steps = [m.draw(st.integers(1, 2)) for _ in x.shape]
    return x.slice(starts, x.shape, steps)


def _pad(m: _Maker, x: Sym) -> Sym:
    low = [m.draw(st.integers(-1 if n > 2 else 0, 2)) for n in x.shape]
    high = [m.draw(st.integers(0, 1)) for _ in x.shape]
    interior = [m.draw(st.integers(0, 1)) for _ in x.shape]
    return x.pad(low, high, m.draw(st.sampled_from([0.0, 1.0])), interior)


def _reverse(m: _Maker, x: Sym) -> Sym:
    return x.reverse(_axes(m, x))


def _concat(m: _Maker, x: Sym) -> Sym | None:
    if not x.rank:
        return None
    return x.concat([x + 1.0, x], m.draw(st.integers(0, x.rank - 1)))


def _reduce(m: _Maker, x: Sym) -> Sym:
    name = m.draw(st.sampled_from(["sum", "max", "min", "mean"]))
    y = getattr(x, name)(_axes(m, x), keepdims=m.draw(st.booleans()))
    return y if y is not x else y * 1.0


def _arg(m: _Maker, x: Sym) -> Sym | None:
    return x.argmax(_axes(m, x)).cast(f64) if x.rank else None


def _softmax(m: _Maker, x: Sym) -> Sym | None:
    if not x.rank:
        return None
    axis = m.draw(st.integers(0, x.rank - 1))
    e = (x - x.max(axis, keepdims=True)).exp()
    return e / e.sum(axis, keepdims=True)


def _matmul(m: _Maker, x: Sym) -> Sym | None:
    if x.rank < 1 or x.rank > 3:
        return None
    w = m._variable(f"m{len(m.case.variables)}", (x.shape[-1], m.draw(st.integers(1, 4))))
    y = x.matmul(w)
    return (y + 0.5).relu() if m.draw(st.booleans()) else y


def _batched(m: _Maker, x: Sym) -> Sym | None:
    return x.matmul(x.transpose([0, 2, 1])) if x.rank == 3 else None


def _conv(m: _Maker, x: Sym) -> Sym | None:
    if x.rank != 4:
        x = (
            x.reshape([1, *(1,) * (3 - x.rank), *x.shape])
            if x.rank < 4
            else x.reshape([1, 1, 1, -1])
        )
    groups = 2 if x.shape[1] % 2 == 0 and m.draw(st.booleans()) else 1
    kernel = [m.draw(st.integers(1, min(3, n + 1))) for n in x.shape[2:]]
    low = [
        1 if k > n else m.draw(st.integers(0, 1)) for k, n in zip(kernel, x.shape[2:], strict=True)
    ]
    stride = m.draw(st.integers(1, 2))
    shape = (2 * groups, x.shape[1] // groups, *kernel)
    w = m._variable(f"c{len(m.case.variables)}", shape)
    y = x.conv(w, strides=(stride, stride), low=low, high=low, groups=groups)
    if m.draw(st.booleans()):
        return y
    (d,) = (y.square(),)
    (value,) = y.value.node.op.pullback((d,), (x, w), (y,))[:1]
    return value


def _conv_weight(m: _Maker, x: Sym) -> Sym | None:
    y = _conv(m, x)
    if y is None or y.value.node is None or y.value.node.op.name != "conv":
        return y
    a, b = (Sym(m.b, v) for v in y.value.node.operands)
    return y.value.node.op.pullback((y * 0.5,), (a, b), (y,))[1]


def _windows(m: _Maker, x: Sym) -> Sym | None:
    if x.rank != 4:
        return None
    sizes = [min(n, m.draw(st.integers(1, 3))) for n in x.shape[2:]]
    strides = [m.draw(st.integers(1, k)) for k in sizes]
    w = x.windows((2, 3), sizes, strides, low=(0, 0), high=(0, 0))
    if m.draw(st.booleans()):
        best, at = w.max([4, 5]), w.argmax([4, 5])
        return best * at.cast(f64)
    hit = w == w.max([4, 5]).broadcast(w.shape, [0, 1, 2, 3])
    (back,) = w.value.node.op.pullback((hit.cast(f64) * 0.5,), (x,), (w,))
    return back


def _take(m: _Maker, x: Sym) -> Sym | None:
    if not x.rank:
        return None
    axis = m.draw(st.integers(0, x.rank - 1))
    n = x.shape[axis]
    at = m.rng.integers(-n, n, m._shape(0, 2))
    indices = constant(m.b, at, i64)
    y = x.take(indices, axis)
    how = m.draw(st.sampled_from(["take", "add", "set", "max", "min"]))
    return y if how == "take" else scatter_rows(x, indices, y * 2.0, axis, how)


def _take_along(m: _Maker, x: Sym) -> Sym | None:
    if not x.rank:
        return None
    axis = m.draw(st.integers(0, x.rank - 1))
    at = (x > 0).cast(i64) * (x.shape[axis] - 1)
    y = x.take_along(at, axis)
    how = m.draw(st.sampled_from(["take", "add", "set", "max"]))
    return y if how == "take" else scatter_along(x, at, y * 0.5, axis, how)


def _running(m: _Maker, x: Sym) -> Sym | None:
    if not x.rank:
        return None
    axis, turned = m.draw(st.integers(0, x.rank - 1)), m.draw(st.booleans())
    if m.draw(st.booleans()):
        exclusive = m.draw(st.booleans())
        return x.emit(CumSum(axis=axis, exclusive=exclusive, reverse=turned), x)
    return x.emit(Recurrence(axis=axis, reverse=turned), x.tanh(), x)


def _iota(m: _Maker, x: Sym) -> Sym | None:
    if not x.rank:
        return None
    axis = m.draw(st.integers(0, x.rank - 1))
    return (iota(m.b, x.shape, axis, i64) == 1).where(x, 0.0) + iota(m.b, x.shape, axis, f64)


def _any(m: _Maker, x: Sym) -> Sym:
    hit = (x > 1.0).any(_axes(m, x)) if x.rank else x > 1.0
    assert hit.dtype == bool_
    return hit.where(hit.cast(f64), -1.0)


_STEPS = [
    _unary, _unary, _binary, _binary, _scaled, _masked, _casts, _transpose, _reshape, _split, _broadcast, _slice, _pad, _reverse,
    _concat, _reduce, _reduce, _arg, _softmax, _softmax, _matmul, _batched, _conv, _conv_weight, _windows, _take, _take_along, _iota,
    _any, _running,
]  # fmt: skip
