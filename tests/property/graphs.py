"""Random graphs for properties: most primitives, four element types, odd names, special numbers.

`graphs()` draws a `Sample`: a graph and arrays to run it on. Numbers are small multiples of 1/4, so that sums and products of
few are exact, and now and then an infinity, a NaN or a negative zero.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tapeout.ir.build import Builder
from tapeout.ir.dtype import DType, bool_, f16, f32, f64, i32, i64, u8
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.ops import elementwise as ew
from tapeout.ops.sym import Sym, constant, iota, random_bits
from tapeout.support.loc import Loc

Array = np.ndarray[Any, Any]
DTYPES = (f64, f64, f32, f16, i32, u8, bool_)
NAMES = ("x", "fc1.weight", "a b", "0", "x:0", 'q"', "é", "//", "f32", "nan", "graph")
SPECIAL = (np.inf, -np.inf, np.nan, -0.0)


@dataclass(frozen=True)
class Sample:
    """A graph with arrays to run it on."""

    graph: Graph
    inputs: dict[str, Array]
    variables: dict[str, Array]
    exact: bool
    """Whether every order of adding gives the same numbers: no sum or product of many in it."""

    def __repr__(self) -> str:
        return str(self.graph)


@st.composite
def graphs(draw: st.DrawFn, most: int = 14) -> Sample:
    """Draw a graph of at most `most` operations over small tensors."""
    made = _Maker(draw)
    for _ in range(draw(st.integers(1, most))):
        made.step()
    return made.sample()


class _Maker:
    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.b = Builder(draw(st.sampled_from(["step", "my graph"])))
        self.numbers = np.random.default_rng(draw(st.integers(0, 9999)))
        self.inputs: dict[str, Array] = {}
        self.variables: dict[str, Array] = {}
        self.pool: list[Sym] = []
        self.exact = True
        names = draw(st.permutations(NAMES))
        for name in names[: draw(st.integers(1, 3))]:
            self.input(name)
        for name in names[3 : draw(st.integers(3, 5))]:
            self.variable(name)

    def array(self, dtype: DType, shape: tuple[int, ...]) -> Array:
        found = self.numbers.integers(-8, 9, shape) / 4.0
        if dtype.is_float and found.size and self.draw(st.integers(0, 4)) == 0:
            found.flat[0] = self.draw(st.sampled_from(SPECIAL))
        with np.errstate(invalid="ignore"):
            return np.asarray((np.abs(found) if dtype.kind == "u" else found).astype(dtype.numpy))

    def shape(self) -> tuple[int, ...]:
        return tuple(self.draw(st.lists(st.sampled_from([1, 2, 3, 4]), max_size=3)))

    def input(self, name: str) -> None:
        type_ = TensorType(self.draw(st.sampled_from(DTYPES)), self.shape())
        self.inputs[name] = self.array(type_.dtype, type_.shape)
        self.pool.append(Sym(self.b, self.b.add_input(name, type_)))

    def variable(self, name: str) -> None:
        type_ = TensorType(self.draw(st.sampled_from(DTYPES)), self.shape())
        kind = self.draw(st.sampled_from(["parameter", "state", "hyper"]))
        initial = self.array(type_.dtype, type_.shape)
        self.variables[name] = initial
        value = self.b.add_variable(
            name, type_, kind, trainable=self.draw(st.booleans()), initial=initial
        )
        self.pool.append(Sym(self.b, value))

    def pick(self, kinds: str = "fiub") -> Sym | None:
        """Draw a value of some kinds of element types, recent ones more often."""
        fits = [v for v in self.pool if v.dtype.kind in kinds]
        if not fits:
            return None
        return self.draw(st.sampled_from(fits[-4:] if self.draw(st.booleans()) else fits))

    def step(self) -> None:
        """Append one operation, or a few that belong together."""
        places = [Loc(), Loc("m.onnx", "/a/b"), Loc("m o.onnx", "x:y", "backward"), Loc("", "n")]
        self.b.loc = self.draw(st.sampled_from(places))
        made = self.draw(st.sampled_from(STEPS))(self)
        if made is not None and made.type.size <= 256:
            self.pool.append(made)

    def sample(self) -> Sample:
        outputs = self.draw(st.lists(st.sampled_from(self.pool), min_size=1, max_size=3))
        for i, v in enumerate([*outputs, self.pool[-1]]):
            self.b.set_output(f"out{i}" if i else "the loss", v.value)
        for name in self.variables:
            w = next(v for v in self.pool if v.value.name == name)
            new = next((v for v in reversed(self.pool) if v.type == w.type), None)
            if new is not None and self.draw(st.booleans()):
                self.b.set_update(name, new.value)
        bad = next((v for v in self.pool if v.dtype == bool_ and not v.shape), None)
        graph_checks = bad is not None and self.draw(st.booleans())
        if bad is not None and graph_checks:
            self.b.add_check((bad & ~bad).value, 'a "message"\nof two lines')
        return Sample(self.b.graph(), self.inputs, self.variables, self.exact)


Made = Sym | None


def _unary(m: _Maker) -> Made:
    x = m.pick("f")
    op = m.draw(st.sampled_from([ew.Neg, ew.Abs, ew.Relu, ew.Floor, ew.Exp, ew.Tanh, ew.Sigmoid]))
    return None if x is None else x.unary(op())


def _binary(m: _Maker) -> Made:
    x = m.pick("fiu")
    if x is None:
        return None
    same = [v for v in m.pool if v.type == x.type]
    other = m.draw(st.sampled_from([*same, -1, 0, 1, 2]))
    if isinstance(other, int) and other < 0 and x.dtype.kind == "u":
        other = 3
    name = m.draw(st.sampled_from(["add", "sub", "mul", "maximum", "minimum"]))
    method = {"add": "__add__", "sub": "__sub__", "mul": "__mul__"}.get(name, name)
    found: Sym = getattr(x, method)(other)
    return found


def _divide(m: _Maker) -> Made:
    x = m.pick("f")
    return None if x is None else x / m.draw(st.sampled_from([1, 2, 4, -0.5, 3]))


def _power(m: _Maker) -> Made:
    x = m.pick("f")
    return None if x is None else x ** m.draw(st.sampled_from([0, 1, 2]))


def _compare(m: _Maker) -> Made:
    x = m.pick("fiu")
    if x is None:
        return None
    y = m.draw(st.sampled_from([v for v in m.pool if v.type == x.type]))
    return m.draw(st.sampled_from([x == y, x != y, x < y, x >= y]))


def _logic(m: _Maker) -> Made:
    x = m.pick("b")
    if x is None:
        return None
    y = m.draw(st.sampled_from([v for v in m.pool if v.type == x.type]))
    true, false = x.like(True), x.like(False)
    return m.draw(st.sampled_from([~x, x & y, x | y, x ^ y, x & true, x | false, x ^ true]))


def _select(m: _Maker) -> Made:
    c = m.pick("b")
    if c is None:
        return None
    branches = [v for v in m.pool if v.shape == c.shape]
    a = m.draw(st.sampled_from(branches))
    b = m.draw(st.sampled_from([v for v in branches if v.dtype == a.dtype]))
    return m.draw(st.sampled_from([c, ~c, c.like(True), c.like(False)])).where(a, b)


def _cast(m: _Maker) -> Made:
    x = m.pick()
    assert x is not None
    # Floats that fit no integer are left out: their conversion is the machine's own affair.
    targets = (f16, f32, f64) if x.dtype.is_float else (f32, f64, i32, i64, u8, x.dtype)
    return x.emit(ew.Cast(dtype=m.draw(st.sampled_from(targets))), x)


def _bitcast(m: _Maker) -> Made:
    x = m.pick("fi")
    pairs = {f32: i32, i32: f32, f64: i64, i64: f64}
    return None if x is None or x.dtype not in pairs else x.bitcast(pairs[x.dtype]).bitcast(x.dtype)


def _reshape(m: _Maker) -> Made:
    x = m.pick()
    assert x is not None
    size = x.type.size
    pairs = [(d, size // d) for d in range(1, size + 1) if size % d == 0]
    shapes = [(size,), (1, *x.shape), (*x.shape, 1), *pairs]
    return x.reshape(m.draw(st.sampled_from(shapes)))


def _transpose(m: _Maker) -> Made:
    x = m.pick()
    assert x is not None
    return x.transpose(m.draw(st.permutations(range(x.rank))))


def _broadcast(m: _Maker) -> Made:
    x = m.pick()
    assert x is not None
    if m.draw(st.booleans()):
        return x.broadcast((2, *x.shape), range(1, x.rank + 1))
    grown = [3 if n == 1 else n for n in x.shape]
    return x.broadcast(grown, range(x.rank))


def _slice(m: _Maker) -> Made:
    x = m.pick()
    assert x is not None
    starts = [m.draw(st.integers(0, n - 1)) if n else 0 for n in x.shape]
    limits = [m.draw(st.integers(a, n)) for a, n in zip(starts, x.shape, strict=True)]
    strides = [m.draw(st.integers(1, 2)) for _ in x.shape]
    return x.slice(starts, [max(b, a + 1) for a, b in zip(starts, limits, strict=True)], strides)


def _pad(m: _Maker) -> Made:
    x = m.pick("f")
    if x is None:
        return None
    low = [m.draw(st.integers(-1 if n > 2 else 0, 2)) for n in x.shape]
    high = [m.draw(st.integers(-1 if n > 2 else 0, 1)) for n in x.shape]
    between = [m.draw(st.integers(0, 1)) for _ in x.shape] if m.draw(st.booleans()) else None
    return x.pad(low, high, m.draw(st.sampled_from([0.0, -0.0, 1.5, -np.inf])), between)


def _reverse(m: _Maker) -> Made:
    x = m.pick()
    assert x is not None
    return x.reverse(m.draw(st.sets(st.integers(0, x.rank - 1)))) if x.rank else None


def _concat(m: _Maker) -> Made:
    x = m.pick()
    assert x is not None
    return x.concat(m.draw(st.sampled_from([[], [x], [x, x]])), 0) if x.rank else None


def _reduce(m: _Maker) -> Made:
    x = m.pick("fiu")
    if x is None or not x.rank:
        return None
    axes = sorted(m.draw(st.sets(st.integers(0, x.rank - 1), min_size=1)))
    how = m.draw(st.sampled_from(["sum", "prod", "max", "min"]))
    # One that reduces nothing is exact whatever it combines.
    many = any(x.shape[a] != 1 for a in axes)
    m.exact = m.exact and not (many and how in ("sum", "prod"))
    found: Sym = getattr(x, how)(axes)
    return found


def _any(m: _Maker) -> Made:
    x = m.pick("b")
    if x is None or not x.rank:
        return None
    axes = m.draw(st.sets(st.integers(0, x.rank - 1), min_size=1))
    return x.any(sorted(axes)) if m.draw(st.booleans()) else x.all(sorted(axes))


def _argmax(m: _Maker) -> Made:
    x = m.pick("fi")
    return None if x is None or not x.rank else x.argmax(m.draw(st.integers(0, x.rank - 1)))


def _matmul(m: _Maker) -> Made:
    x = m.pick("f")
    if x is None or x.rank < 2:
        return None
    m.exact = False
    fits = [v for v in m.pool if v.dtype == x.dtype and v.rank == 2 and v.shape[0] == x.shape[-1]]
    y = m.draw(st.sampled_from(fits)) if fits else x.transpose()
    if not fits and x.rank > 2:
        return None
    z = x @ y
    return z.transpose() if z.rank == 2 and m.draw(st.booleans()) else z


def _conv(m: _Maker) -> Made:
    x = m.pick("f")
    if x is None or x.rank < 1 or x.type.size > 64:
        return None
    m.exact = False
    image = x.reshape((1, 1, x.shape[0], -1))
    kernel = constant(m.b, m.array(f64, (2, 1, 2, 2))).cast(x.dtype)
    return image.conv(kernel, strides=(1, 1), low=(1, 1), high=(1, 1))


def _constant(m: _Maker) -> Made:
    return constant(m.b, m.array(m.draw(st.sampled_from(DTYPES)), m.shape()))


def _iota(m: _Maker) -> Made:
    return iota(m.b, (m.draw(st.integers(1, 4)), 2), 0, m.draw(st.sampled_from([i32, f32])))


def _random(m: _Maker) -> Made:
    seed = constant(m.b, 7, i64)
    return random_bits(seed, seed, m.draw(st.integers(0, 2)), (2, 3)).cast(i64)


def _twice(m: _Maker) -> Made:
    """The same again, for merging."""
    x = m.pick("fi")
    return None if x is None else (x + x) * (x + x)


STEPS: tuple[Callable[[_Maker], Made], ...] = (
    *(_unary, _binary, _binary, _divide, _power, _compare, _logic, _select, _cast, _bitcast),
    *(_reshape, _reshape, _transpose, _transpose, _broadcast, _slice, _pad, _reverse, _concat),
    *(_reduce, _any, _argmax, _matmul, _conv, _constant, _iota, _random, _twice),
)
