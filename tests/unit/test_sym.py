"""`Sym`: operators, broadcasting, indexing and methods, against the same words in numpy."""

import numpy as np
import pytest

from tapeout.ir.build import Builder
from tapeout.ir.dtype import BY_NAME, bool_, f32, f64, i32, i64, u32, u64
from tapeout.ir.type import Dim, TensorType
from tapeout.ops.sym import Sym, broadcast_shapes, broadcast_together, constant, iota, random_bits
from tapeout.oracle import graph as graph_oracle
from tapeout.support.errors import ShapeError, UnboundDimension
from tapeout.support.loc import Loc

A = np.array([[0.5, -1.5, 2.0], [3.0, 0.25, -0.75]])
V = np.array([2.0, -0.5, 1.25])
S = np.array(3.0)
N = np.array([[1, 5, 2], [7, 0, 3]])


def symbols(*arrays: np.ndarray) -> list[Sym]:
    b = Builder("sym")
    return [
        Sym(b, b.add_input(f"x{i}", TensorType(BY_NAME[_name(a)], a.shape)))
        for i, a in enumerate(arrays)
    ]


def _name(a: np.ndarray) -> str:
    return {"float64": "f64", "float32": "f32", "int64": "i64", "bool": "bool"}[a.dtype.name]


def run(formula: object, *arrays: np.ndarray) -> np.ndarray:
    xs = symbols(*arrays)
    xs[0].builder.set_output("y", formula(*xs).value)
    given = {f"x{i}": a for i, a in enumerate(arrays)}
    return graph_oracle.run(xs[0].builder.graph(), given).outputs["y"]


SAME = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "@": lambda a, b: a @ b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "+ 1": lambda a, b: a + 1,
    "1 +": lambda a, b: 1 + a,
    "1 -": lambda a, b: 1 - a,
    "2 *": lambda a, b: 2 * a,
    "2 /": lambda a, b: 2 / a,
    "** 2": lambda a, b: a**2,
    "2 **": lambda a, b: 2**a,
    "neg": lambda a, b: -a,
    "mean": lambda a, b: a.mean() + b,
    "sum": lambda a, b: a.sum(1, keepdims=True) + b,
    "max": lambda a, b: a.max(0) - b,
    "min": lambda a, b: a.min(-1),
    "prod": lambda a, b: a.prod((0, 1)),
    "a[0]": lambda a, b: a[0],
    "a[-1, 1:]": lambda a, b: a[-1, 1:],
    "a[:, None]": lambda a, b: a[:, None],
    "a[..., 0]": lambda a, b: a[..., 0],
    "a[..., ::2]": lambda a, b: a[..., ::2],
    "a[::-1, 2:0:-1]": lambda a, b: a[::-1, 2:0:-1],
    "a[5:]": lambda a, b: a[5:],
    "a[:-1]": lambda a, b: a[:-1],
    "transpose": lambda a, b: a.transpose((1, 0)),
    "reversed": lambda a, b: a.transpose() * 2.0,
    "reshape": lambda a, b: a.reshape((3, -1)),
    "clip": lambda a, b: a.clip(-1.0, 1.0),
}


@pytest.mark.parametrize("name", SAME)
def test_same_words_as_numpy(name: str) -> None:
    function = SAME[name]
    np.testing.assert_allclose(run(function, A, V), function(A, V), rtol=1e-14)


METHODS = {
    "maximum": (lambda a, b: a.maximum(b), np.maximum),
    "minimum": (lambda a, b: a.minimum(0.0), lambda a, b: np.minimum(a, 0)),
    "remainder": (lambda a, b: a.remainder(b), np.fmod),
    "floor_mod": (lambda a, b: a.floor_mod(b), np.mod),
    "atan2": (lambda a, b: a.atan2(b), np.arctan2),
    "abs": (lambda a, b: a.abs(), lambda a, b: abs(a)),
    "square": (lambda a, b: a.square(), lambda a, b: a * a),
    "where": (lambda a, b: (a > b).where(a, 0.0), lambda a, b: np.where(a > b, a, 0)),
    "where scalar": (lambda a, b: (a > b).where(1.0, a), lambda a, b: np.where(a > b, 1, a)),
    "concat": (lambda a, b: a.concat([a, a], -1), lambda a, b: np.hstack([a, a, a])),
    "expand": (lambda a, b: a.expand_dims([0, -1]), lambda a, b: a[None, :, :, None]),
    "squeeze": (lambda a, b: b.reshape([1, 3, 1]).squeeze([0, -1]), lambda a, b: b),
    "pad": (
        lambda a, b: a.pad([1, 0], [0, 1], 7.0),
        lambda a, b: np.pad(a, ((1, 0), (0, 1)), constant_values=7),
    ),
    "reverse": (lambda a, b: a.reverse([-1]), lambda a, b: a[:, ::-1]),
    "windows": (
        lambda a, b: b.windows([0], [2]).sum(1),
        lambda a, b: np.array([b[0] + b[1], b[1] + b[2]]),
    ),
    "broadcast_to": (lambda a, b: b.broadcast_to([2, 3]), lambda a, b: np.broadcast_to(b, (2, 3))),
    "like": (lambda a, b: a.like(2.5), lambda a, b: np.full_like(a, 2.5)),
    "zeros_like": (lambda a, b: a.zeros_like(), lambda a, b: np.zeros_like(a)),
    "array operand": (lambda a, b: a + V, lambda a, b: a + V),
    "mean of a line": (
        lambda a, b: a.mean([1], keepdims=True),
        lambda a, b: a.mean(1, keepdims=True),
    ),
    "argmax": (lambda a, b: a.argmax(1), lambda a, b: a.argmax(1)),
    "argmin": (lambda a, b: a.argmin(0, keepdims=True), lambda a, b: a.argmin(0)[None]),
    "is_nan": (lambda a, b: (a / a.zeros_like()).is_nan(), lambda a, b: np.zeros(a.shape, bool)),
    "any": (lambda a, b: (a > 2.0).any(1), lambda a, b: (a > 2).any(1)),
    "all": (lambda a, b: (a > -1.0).all(), lambda a, b: (a > -1).all()),
    "logic": (
        lambda a, b: ((a > 0) & ~(b < 0)) ^ (a == b),
        lambda a, b: ((a > 0) & ~(b < 0)) ^ (a == b),
    ),
    "or": (lambda a, b: (a > 0) | (b < 0), lambda a, b: (a > 0) | (b < 0)),
    "take": (lambda a, b: b.take(b.constant(np.array([[2, -1]])), 0), lambda a, b: b[[[2, 2]]]),
    "sum of nothing": (lambda a, b: a.sum([]), lambda a, b: a),
    "cast": (lambda a, b: a.cast(i32).cast(f64), lambda a, b: np.trunc(a)),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    ours, numpys = METHODS[name]
    np.testing.assert_allclose(run(ours, A, V), numpys(A, V), rtol=1e-14)


def test_functions() -> None:
    names = ["exp", "expm1", "sin", "cos", "tanh", "sinh", "cosh", "sign", "floor"]
    for name in names:
        np.testing.assert_allclose(
            run(lambda a, n=name: getattr(a, n)(), A), getattr(np, name)(A), rtol=1e-14
        )
    for name in ("log", "log1p", "sqrt"):
        np.testing.assert_allclose(
            run(lambda a, n=name: getattr(a, n)(), N + 1.0), getattr(np, name)(N + 1.0)
        )
    np.testing.assert_allclose(run(lambda a: a.rsqrt() * a.sqrt(), N + 1.0), np.ones((2, 3)))
    np.testing.assert_allclose(run(lambda a: a.sigmoid(), A), 1 / (1 + np.exp(-A)))
    np.testing.assert_allclose(run(lambda a: a.relu() - (-a).relu(), A), A)
    assert run(lambda a: a.erf(), S) == pytest.approx(0.9999779095030014)


def test_integers() -> None:
    for function in (
        lambda n: n << 3,
        lambda n: n >> 1,
        lambda n: (n & 6) | 1,
        lambda n: ~n,
        lambda n: n * n,
    ):
        np.testing.assert_array_equal(run(function, N), function(N))


def test_matmul_by_numpys_rule() -> None:
    rng = np.random.default_rng(0)
    for a, b in (((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((4, 2, 3), (3, 5)), ((4, 2, 3), (4, 3, 5)),
                 ((2, 1, 2, 3), (4, 3, 2)), ((3,), (4, 3, 2))):  # fmt: skip
        x, y = rng.normal(size=a), rng.normal(size=b)
        np.testing.assert_allclose(run(lambda p, q: p @ q, x, y), x @ y, rtol=1e-12)


def test_what_changes_nothing_makes_no_node() -> None:
    (a,) = symbols(A)
    assert a.reshape([2, 3]) is a
    assert a.transpose([0, 1]) is a
    assert a.broadcast_to([2, 3]) is a
    assert a.cast(f64) is a
    assert a[:] is a and a[...] is a
    assert a.builder.nodes == []


def test_numbers_take_the_type_of_the_other_operand() -> None:
    for dtype in (f32, i64, BY_NAME["bf16"], u32):
        b = Builder("types")
        x = Sym(b, b.add_input("x", TensorType(dtype, (2,))))
        assert (x + 1).dtype == (2 * x).dtype == dtype
        assert (x > 0).dtype == bool_
        assert x.like(1).type == x.type


def test_constants_and_counters() -> None:
    b = Builder("constants")
    assert constant(b, 1.5, f32).type == TensorType(f32)
    assert constant(b, np.zeros((2, 3), np.int32)).type == TensorType(i32, (2, 3))
    assert iota(b, (2, 3), 1).type == TensorType(i32, (2, 3))
    seed = constant(b, 0, i64)
    assert random_bits(seed, seed, 3, (4,)).type == TensorType(u32, (4,))
    assert random_bits(seed, seed, 3, (4,)).bitcast(f32).type == TensorType(f32, (4,))
    assert constant(b, 2**63, u64).dtype == u64
    with pytest.raises(TypeError, match="no element type"):
        constant(b, np.zeros(2, complex))


def test_named_dimensions_are_kept() -> None:
    b = Builder("dims")
    n = Dim.named("N", 2)
    x = Sym(b, b.add_input("x", TensorType(f32, (n, 4, 3))))
    y = (x + 1.0).reshape([n, -1]).transpose()
    assert y.shape == (12, 2) and y.shape[1].resolve({"N": 9}) == 9
    assert x[:, 1:].sum(1).shape[0].resolve({"N": 9}) == 9
    for key, size in (
        (np.s_[1:], 8),
        (np.s_[:-1], 8),
        (np.s_[-2:], 2),
        (np.s_[::2], 5),
        (np.s_[::-1], 9),
    ):
        assert (
            int(getattr(x[key].shape[0], "resolve", lambda d, v=x[key].shape[0]: v)({"N": 9}))
            == size
        )
    last = x[-1].value.node.operands[0].node.op
    assert last.resolve({"N": 9}).starts == (8, 0, 0)
    with pytest.raises(UnboundDimension, match="not bound yet"):
        x[:5]
    folded = x.reshape([-1, 3])
    assert folded.shape == (8, 3) and folded.shape[0].resolve({"N": 9}) == 36


def test_a_sym_has_no_truth_value() -> None:
    (a,) = symbols(A)
    with pytest.raises(TypeError, match=r"no truth value.*\.where"):
        bool(a > 0)
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_graphs_do_not_mix() -> None:
    (a,), (b,) = symbols(A), symbols(A)
    with pytest.raises(ShapeError, match="belongs to another graph"):
        _ = a + b


def test_places_are_told() -> None:
    b = Builder("loc")
    with b.at(Loc(file="net.onnx", name="fc1")):
        x = Sym(b, b.add_input("x", TensorType(f32, (2,)))).exp()
    assert str(x.loc) == "net.onnx:fc1"
    with b.at(Loc(file="net.onnx", name="fc2")), pytest.raises(ShapeError, match=r"net.onnx:fc2: "):
        x.reshape([3])


BROADCASTS = [
    ([(2, 3), (3,)], (2, 3)),
    ([(2, 1), (1, 3)], (2, 3)),
    ([(), (4, 1)], (4, 1)),
    ([(0, 1), (1, 5)], (0, 5)),
    ([], ()),
]


@pytest.mark.parametrize(("shapes", "common"), BROADCASTS)
def test_broadcast_shapes(shapes: list[tuple[int, ...]], common: tuple[int, ...]) -> None:
    assert broadcast_shapes(*shapes) == common == np.broadcast_shapes(*shapes)


def test_shapes_that_do_not_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"do not broadcast: \[2, 3\] and \[2\]"):
        broadcast_shapes((2, 3), (2,))
    a, v = symbols(A, V)
    assert [x.shape for x in broadcast_together(a, v)] == [(2, 3), (2, 3)]


@pytest.mark.parametrize("key", [(0, 0, 0), 2, (0, 3), (..., ..., 0)])
def test_indices_that_do_not_fit(key: object) -> None:
    (a,) = symbols(A)
    with pytest.raises(ShapeError, match=r"index|out of range"):
        a[key]
