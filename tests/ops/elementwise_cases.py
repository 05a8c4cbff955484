"""Rows of elementwise operations. The oracle is Python's math module, one number at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir import dtype as dt
from tapeout.ops import elementwise as ew
from tests.ops.cases import Case, Operand

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.op import Array, Op

INF, NAN = math.inf, math.nan
SPECIAL = (0.0, -0.0, INF, -INF, NAN)
FLOATS = (dt.f64, dt.f32, dt.f16, dt.bf16)
SHAPE = (3, 5)


def each(function: Callable[..., Any]) -> Callable[..., Array]:
    """Return a function of arrays that calls a function of Python numbers for each element."""

    def run(*arrays: Array) -> Array:
        wide = [a.astype(np.float64) if a.dtype.kind not in "iub" else a for a in arrays]
        found = [
            function(*(v.item() for v in vs)) for vs in zip(*(w.flat for w in wide), strict=True)
        ]
        like = arrays[-1].dtype
        if isinstance(found[0], bool):
            out = np.array(found)
        elif like.kind in "iu":
            out = np.array(found, like)
        else:
            out = np.array(found, np.float64).astype(like)
        return out.reshape(arrays[0].shape)

    return run


def unary(
    op: Op,
    function: Callable[[float], Any],
    low: float = -2.0,
    high: float = 2.0,
    *,
    avoid: tuple[float, ...] = (),
    special: tuple[float, ...] = SPECIAL,
    kind: str = "transcendental",
    **more: Any,
) -> list[Case]:
    """Return a row per float type. `function` is asked only for numbers in range."""
    rows = []
    for dtype in FLOATS:
        drawn = Operand(dtype, SHAPE, low, high, avoid)
        rows.append(Case(op, (drawn,), kind, each(function), **more))
    for dtype in FLOATS[:2]:
        shown = Operand(dtype, SHAPE, low, high, avoid, special)
        rows.append(Case(op, (shown,), kind, None, **{**more, "order": 0}, label="special"))
    return rows


def binary(
    op: Op,
    function: Callable[[float, float], Any],
    a: tuple[float, float] = (-2.0, 2.0),
    b: tuple[float, float] = (-2.0, 2.0),
    *,
    avoid: tuple[float, ...] = (),
    special: tuple[float, ...] = (0.0, 1.0, -0.0, INF, -INF, NAN, 2.5),
    kind: str = "arithmetic",
    **more: Any,
) -> list[Case]:
    """Return a row per float type, and rows of special numbers against each other."""
    rows = []
    for dtype in FLOATS:
        drawn = (Operand(dtype, SHAPE, *a, avoid), Operand(dtype, SHAPE, *b, avoid))
        rows.append(Case(op, drawn, kind, each(function), **more))
    n = len(special)
    pairs = [(x, y) for x in special for y in special]
    for dtype in FLOATS[:2]:
        left, right = (Operand(dtype, (n, n), values=tuple(p[i] for p in pairs)) for i in range(2))
        rows.append(Case(op, (left, right), kind, None, **{**more, "order": 0}, label="special"))
    return rows


def wrapped(bits: int, signed: bool) -> Callable[[int], int]:
    """Return what keeps a whole number in a type."""

    def wrap(x: int) -> int:
        x &= (1 << bits) - 1
        return x - (1 << bits) if signed and x >> (bits - 1) else x

    return wrap


def integers(
    op: Op,
    function: Callable[..., Any],
    dtypes: str = "i8 i16 i32 i64 u8 u16 u32 u64",
    b: tuple[int, int] | None = None,
    **more: Any,
) -> list[Case]:
    """Return a row per integer type, over its whole range."""
    rows = []
    for name in dtypes.split():
        dtype = dt.BY_NAME[name]
        info = np.iinfo(dtype.numpy)
        wrap = wrapped(dtype.bits, dtype.kind == "i")
        least, most = int(info.min), int(info.max)
        shown = tuple(v for v in (0, 1, -1, 2, 5, -7) if v >= least)
        extreme = (least, most) if dtype.bits < 64 else ()
        first = Operand(dtype, (4, 5), max(least, -100), min(most, 100), special=(*shown, *extreme))
        operands: tuple[Operand, ...] = (first,)
        if op.arity == 2:  # type: ignore[attr-defined]
            low, high = b if b is not None else (max(least, -9), 9)
            other = Operand(
                dtype, (4, 5), max(low, least), high, special=(3, 0, 2, 1) if b is None else ()
            )
            operands = (first, other)

        def expected(*xs: int, wrap: Callable[[int], int] = wrap) -> Any:
            out = function(*xs)
            return out if isinstance(out, bool) else wrap(out)

        rows.append(Case(op, operands, "exact", each(expected), **{"order": 0, **more}))
    return rows


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x)) if x < 30 else x


def phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def tanh_gelu(x: float) -> float:
    return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def truncated(a: int, b: int) -> int:
    return 0 if b == 0 else int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b))


def int_power(a: int, b: int) -> int:
    if b >= 0:
        return a**b
    return 0 if abs(a) != 1 else a ** (-b)


def clamp(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


SELU = (1.67326319217681884765625, 1.05070102214813232421875)

FUNCTIONS = [
    *unary(ew.Exp(), math.exp, special=(*SPECIAL, 800.0, -800.0)),
    *unary(ew.Expm1(), math.expm1, special=(*SPECIAL, 1e-7, -800.0)),
    *unary(ew.Log(), math.log, 0.1, 3.0, special=(*SPECIAL, -1.0)),
    *unary(ew.Log1p(), math.log1p, -0.9, 3.0, special=(*SPECIAL, -1.0, 1e-7)),
    *unary(ew.Sqrt(), math.sqrt, 0.1, 3.0, kind="arithmetic", special=(*SPECIAL, -1.0)),
    *unary(ew.Rsqrt(), lambda x: 1 / math.sqrt(x), 0.1, 3.0, special=(*SPECIAL, -1.0)),
    *unary(ew.Sin(), math.sin, -4.0, 4.0),
    *unary(ew.Cos(), math.cos, -4.0, 4.0),
    *unary(ew.Tan(), math.tan, -1.3, 1.3),
    *unary(ew.Asin(), math.asin, -0.9, 0.9, special=(*SPECIAL, 1.0, -1.0, 2.0)),
    *unary(ew.Acos(), math.acos, -0.9, 0.9, special=(*SPECIAL, 1.0, -1.0, 2.0)),
    *unary(ew.Atan(), math.atan),
    *unary(ew.Sinh(), math.sinh),
    *unary(ew.Cosh(), math.cosh),
    *unary(ew.Tanh(), math.tanh),
    *unary(ew.Asinh(), math.asinh),
    *unary(ew.Acosh(), math.acosh, 1.2, 3.0, special=(*SPECIAL, 1.0, -2.0)),
    *unary(ew.Atanh(), math.atanh, -0.9, 0.9, special=(*SPECIAL, 1.0, -1.0, 2.0)),
    *unary(ew.Sigmoid(), sigmoid, -4.0, 4.0, special=(*SPECIAL, 800.0, -800.0)),
    *unary(ew.Erf(), math.erf),
    *unary(ew.Neg(), lambda x: -x, kind="exact", order=1),
    *unary(ew.Abs(), abs, avoid=(0.0,), kind="exact", order=1),
    *unary(ew.Sign(), lambda x: math.copysign(1.0, x), avoid=(0.0,), kind="exact", zero=True),
    *unary(ew.Floor(), lambda x: float(math.floor(x)), avoid=(-1, 0, 1), kind="exact", zero=True),
    *unary(ew.Ceil(), lambda x: float(math.ceil(x)), avoid=(-1, 0, 1), kind="exact", zero=True),
    *unary(
        ew.Round(),
        lambda x: float(round(x)),
        avoid=(-1.5, -0.5, 0.5, 1.5),
        special=(*SPECIAL, 0.5, 1.5, -2.5),
        kind="exact",
        zero=True,
    ),
    *unary(ew.IsNan(), math.isnan, kind="exact", order=0),
    *unary(ew.IsInf(), math.isinf, kind="exact", order=0),
]

LARGE = (*SPECIAL, 100.0, -100.0, 800.0, -800.0)

ACTIVATIONS = [
    *unary(ew.Relu(), lambda x: max(x, 0.0), avoid=(0.0,), kind="exact", order=1),
    *unary(
        ew.LeakyRelu(alpha=0.1),
        lambda x: x if x > 0 else 0.1 * x,
        avoid=(0.0,),
        kind="arithmetic",
        order=1,
    ),
    *unary(
        ew.Elu(alpha=2.0),
        lambda x: x if x > 0 else 2 * math.expm1(x),
        avoid=(0.0,),
        special=LARGE,
    ),
    *unary(
        ew.Selu(),
        lambda x: SELU[1] * (x if x > 0 else SELU[0] * math.expm1(x)),
        avoid=(0.0,),
        special=LARGE,
    ),
    *unary(
        ew.Celu(alpha=1.5),
        lambda x: max(0, x) + min(0, 1.5 * math.expm1(x / 1.5)),
        avoid=(0.0,),
        special=LARGE,
    ),
    *unary(ew.Gelu(), lambda x: x * phi(x), special=LARGE[2:3] + LARGE[5:]),
    *unary(ew.Gelu(approximate="tanh"), tanh_gelu, special=LARGE[2:3] + LARGE[5:]),
    *unary(ew.Silu(), lambda x: x * sigmoid(x), special=LARGE[:3] + LARGE[4:]),
    *unary(ew.Mish(), lambda x: x * math.tanh(softplus(x)), special=LARGE[:3] + LARGE[4:]),
    *unary(ew.Softplus(), softplus, -4.0, 4.0, special=LARGE),
    *unary(ew.LogSigmoid(), lambda x: -softplus(-x), -4.0, 4.0, special=LARGE),
    *unary(ew.Softsign(), lambda x: x / (1 + abs(x)), avoid=(0.0,), special=(0.0, NAN, 1e30)),
    *unary(
        ew.HardSigmoid(),
        lambda x: clamp(0.2 * x + 0.5, 0, 1),
        -4.0,
        4.0,
        avoid=(-2.5, 2.5),
        order=1,
    ),
    *unary(
        ew.HardSwish(),
        lambda x: x * clamp(x / 6 + 0.5, 0, 1),
        -4.0,
        4.0,
        avoid=(-3.0, 3.0),
        special=(0.0, -3.0, 3.0, NAN, INF, 100.0),
    ),
    *unary(ew.HardTanh(), lambda x: clamp(x, -1, 1), avoid=(-1.0, 1.0), kind="exact", order=1),
    *unary(
        ew.Relu6(), lambda x: clamp(x, 0, 6), -2.0, 8.0, avoid=(0.0, 6.0), kind="exact", order=1
    ),
    *unary(
        ew.ThresholdedRelu(alpha=0.5),
        lambda x: x if x > 0.5 else 0.0,
        avoid=(0.5,),
        kind="exact",
        order=1,
    ),
    *unary(
        ew.Shrink(bias=0.25, lambd=0.5),
        lambda x: x - math.copysign(0.25, x) if abs(x) > 0.5 else 0.0,
        avoid=(-0.5, 0.5),
        kind="arithmetic",
        order=1,
    ),
    *unary(
        ew.Clip(low=-0.5, high=1.25),
        lambda x: clamp(x, -0.5, 1.25),
        avoid=(-0.5, 1.25),
        kind="exact",
        order=1,
    ),
    *unary(ew.Clip(low=0.25), lambda x: max(x, 0.25), avoid=(0.25,), kind="exact", order=1),
    *unary(ew.Clip(low=1.0, high=-1.0), lambda x: -1.0, kind="exact", zero=True),
    *integers(ew.Clip(low=-3.5, high=7.0), lambda x: clamp(x, -3, 7)),
    *integers(ew.Clip(low=-1e30, high=1e30), lambda x: x),
    *integers(ew.Relu(), lambda x: max(x, 0)),
]

ARITHMETIC = [
    *binary(ew.Add(), lambda a, b: a + b, order=1),
    *binary(ew.Sub(), lambda a, b: a - b, order=1),
    *binary(ew.Mul(), lambda a, b: a * b),
    *binary(ew.Div(), lambda a, b: a / b, b=(0.5, 2.0)),
    *binary(ew.Pow(), lambda a, b: a**b, a=(0.3, 2.0), kind="transcendental"),
    *binary(ew.Max(), max, b=(-1.9, 2.1), kind="exact", order=1),
    *binary(ew.Min(), min, b=(-1.9, 2.1), kind="exact", order=1),
    *binary(ew.Rem(), math.fmod, a=(2.1, 2.4), b=(-0.97, -0.85), kind="transcendental", order=1),
    *binary(
        ew.Mod(),
        lambda a, b: a - b * math.floor(a / b),
        a=(2.1, 2.4),
        b=(-0.97, -0.85),
        kind="transcendental",
        order=1,
    ),
    *binary(ew.Atan2(), math.atan2, b=(0.2, 2.0), kind="transcendental"),
    *binary(
        ew.Prelu(),
        lambda x, slope: x if x > 0 else x * slope,
        avoid=(0.0,),
    ),
    *binary(ew.Equal(), lambda a, b: a == b, kind="exact", order=0),
    *binary(ew.NotEqual(), lambda a, b: a != b, kind="exact", order=0),
    *binary(ew.Less(), lambda a, b: a < b, kind="exact", order=0),
    *binary(ew.LessEqual(), lambda a, b: a <= b, kind="exact", order=0),
    *binary(ew.Greater(), lambda a, b: a > b, kind="exact", order=0),
    *binary(ew.GreaterEqual(), lambda a, b: a >= b, kind="exact", order=0),
    *integers(ew.Neg(), lambda x: -x),
    *integers(ew.Abs(), abs),
    *integers(ew.Sign(), lambda x: (x > 0) - (x < 0)),
    *integers(ew.Add(), lambda a, b: a + b),
    *integers(ew.Sub(), lambda a, b: a - b),
    *integers(ew.Mul(), lambda a, b: a * b),
    *integers(ew.Div(), truncated),
    *integers(ew.Rem(), lambda a, b: a - b * truncated(a, b) if b else 0),
    *integers(ew.Mod(), lambda a, b: a % b if b else 0),
    *integers(ew.Pow(), int_power),
    *integers(ew.Max(), max),
    *integers(ew.Min(), min),
    *integers(ew.And(), lambda a, b: a & b),
    *integers(ew.Or(), lambda a, b: a | b),
    *integers(ew.Xor(), lambda a, b: a ^ b),
    *integers(ew.Not(), lambda a: ~a),
    *integers(ew.Equal(), lambda a, b: a == b),
    *integers(ew.NotEqual(), lambda a, b: a != b),
    *integers(ew.Less(), lambda a, b: a < b),
    *integers(ew.LessEqual(), lambda a, b: a <= b),
    *integers(ew.Greater(), lambda a, b: a > b),
    *integers(ew.GreaterEqual(), lambda a, b: a >= b),
    *integers(ew.ShiftLeft(), lambda a, b: a << b, b=(0, 70)),
    *integers(ew.ShiftRight(), lambda a, b: a >> b, b=(0, 70)),
]

BOOL = Operand(dt.bool_, (4, 4))


def _logic(op: Op, function: Callable[..., bool]) -> Case:
    return Case(op, (BOOL,) * op.arity, "exact", each(function), order=0)  # type: ignore[attr-defined]


LOGIC = [
    _logic(ew.And(), lambda a, b: a and b),
    _logic(ew.Or(), lambda a, b: a or b),
    _logic(ew.Xor(), lambda a, b: a != b),
    _logic(ew.Not(), lambda a: not a),
    _logic(ew.Equal(), lambda a, b: a == b),
    _logic(ew.Less(), lambda a, b: a < b),
    _logic(ew.Max(), lambda a, b: a or b),
    _logic(ew.Min(), lambda a, b: a and b),
    *(
        Case(
            ew.Select(),
            (Operand(dt.bool_, SHAPE), *(Operand(d, SHAPE, 0, 9),) * 2),
            "exact",
            each(lambda c, a, b: a if c else b),
            order=1,
        )
        for d in (dt.f64, dt.f32, dt.bf16, dt.i64, dt.u8, dt.bool_)
    ),
]


def _saturate(to: dt.DType) -> Callable[[Array], Array]:
    info = np.iinfo(to.numpy)

    def one(x: float) -> int:
        if math.isnan(x):
            return 0
        return int(info.min) if x <= info.min else int(info.max) if x >= info.max else int(x)

    return lambda x: np.array([one(float(v)) for v in x.flat], to.numpy).reshape(x.shape)


def _wrap(to: dt.DType) -> Callable[[Array], Array]:
    wrap = wrapped(to.bits, to.kind == "i")
    return lambda x: np.array([wrap(int(v)) for v in x.flat], to.numpy).reshape(x.shape)


ODD = (NAN, INF, -INF, 1e30, -1e30, 300.7, -300.7, 0.9, -0.9, 2.0**31, 2.0**63)
INTEGERS = [d for d in dt.ALL if d.is_integer]
CONVERSIONS = [
    *(
        Case(
            ew.Cast(dtype=to),
            (Operand(source, (4, 4), -9, 9, special=ODD),),
            "exact",
            _saturate(to),
            order=0,
        )
        for source in (dt.f64, dt.f32)
        for to in INTEGERS
    ),
    *(
        Case(
            ew.Cast(dtype=to),
            (Operand(source, (4, 4), 0, 100, special=(0, 1, 127)),),
            "exact",
            _wrap(to),
            order=0,
        )
        for source in INTEGERS
        for to in INTEGERS
    ),
    Case(ew.Cast(dtype=dt.i8), (Operand(dt.i64, (2,), values=(300, -129)),), "exact", _wrap(dt.i8)),
    *(
        Case(
            ew.Cast(dtype=to),
            (Operand(dt.f64, SHAPE, special=(NAN, INF, 1e-8, 1e6)),),
            "exact",
            lambda x, to=to: x.astype(to.numpy),
            order=int(to == dt.f64),
        )
        for to in FLOATS
    ),
    *(
        Case(
            ew.Cast(dtype=dt.bool_),
            (Operand(source, (6,), values=(0, 1, 2, 0, 3, 1)),),
            "exact",
            lambda x: x != 0,
            order=0,
        )
        for source in (dt.f32, dt.f64, dt.i64, dt.u8)
    ),
    Case(
        ew.Cast(dtype=dt.f32), (BOOL,), "exact", lambda x: np.where(x, np.float32(1), np.float32(0))
    ),
    Case(
        ew.Bitcast(dtype=dt.u32),
        (Operand(dt.f32, (3,), values=(1.0, -0.0, INF)),),
        "exact",
        lambda x: np.array([0x3F800000, 0x80000000, 0x7F800000], np.uint32),
        order=0,
    ),
    Case(
        ew.Bitcast(dtype=dt.f64),
        (Operand(dt.i64, (2,), values=(0x3FF0000000000000, 0)),),
        "exact",
        lambda x: np.array([1.0, 0.0]),
    ),
    Case(
        ew.Bitcast(dtype=dt.i16),
        (Operand(dt.bf16, (2,), values=(1.0, -2.0)),),
        "exact",
        lambda x: np.array([0x3F80, -0x4000], np.int16),
        order=0,
    ),
]

CASES = [*FUNCTIONS, *ACTIVATIONS, *ARITHMETIC, *LOGIC, *CONVERSIONS]
