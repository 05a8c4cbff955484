"""Arithmetic and the functions of one number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import add, op
from tapeout.ir.dtype import f64
from tapeout.ops import elementwise as ew
from tapeout.ops.sym import Sym, broadcast_together

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call


def _function(f: Callable[[Sym], Sym]) -> Callable[[Call, Sym], Sym]:
    def run(call: Call, x: Sym) -> Sym:
        return f(x)

    return run


def _rounded(f: Callable[[Sym], Sym]) -> Callable[[Call, Sym], Sym]:
    """Integers are whole already."""

    def run(call: Call, x: Sym) -> Sym:
        return f(x) if x.dtype.is_float else x

    return run


for _name, _f, _since in (
    ("Abs", Sym.abs, 6),
    ("Neg", Sym.__neg__, 6),
    ("Sign", Sym.sign, 9),
    ("Exp", Sym.exp, 6),
    ("Log", Sym.log, 6),
    ("Sqrt", Sym.sqrt, 6),
    ("Erf", Sym.erf, 9),
    ("Sin", Sym.sin, 7),
    ("Cos", Sym.cos, 7),
    ("Tan", lambda x: x.unary(ew.Tan()), 7),
    ("Asin", lambda x: x.unary(ew.Asin()), 7),
    ("Acos", lambda x: x.unary(ew.Acos()), 7),
    ("Atan", lambda x: x.unary(ew.Atan()), 7),
    ("Sinh", Sym.sinh, 9),
    ("Cosh", Sym.cosh, 9),
    ("Tanh", Sym.tanh, 6),
    ("Asinh", lambda x: x.unary(ew.Asinh()), 9),
    ("Acosh", lambda x: x.unary(ew.Acosh()), 9),
    ("Atanh", lambda x: x.unary(ew.Atanh()), 9),
    ("Reciprocal", lambda x: 1 / x, 6),
):
    add(_name, _since, _function(_f))
add("Floor", 6, _rounded(Sym.floor))
add("Ceil", 6, _rounded(lambda x: x.unary(ew.Ceil())))
add("Round", 11, _rounded(lambda x: x.unary(ew.Round())))


@op("Add", since=7)
def add_(call: Call, a: Sym, b: Sym) -> Sym:
    return a + b


@op("Sub", since=7)
def subtract(call: Call, a: Sym, b: Sym) -> Sym:
    return a - b


@op("Mul", since=7)
def multiply(call: Call, a: Sym, b: Sym) -> Sym:
    return a * b


@op("Div", since=7)
def divide(call: Call, a: Sym, b: Sym) -> Sym:
    return a / b


@op("Mod", since=10)
def modulo(call: Call, a: Sym, b: Sym) -> Sym:
    if call.flag("fmod"):
        return a.remainder(b)
    floats_allowed = call.opset >= 28
    call.require(floats_allowed or a.dtype.is_integer, "floats need fmod=1 before opset 28")
    return a.floor_mod(b)


@op("Pow", since=7)
def power(call: Call, base: Sym, exponent: Sym) -> Sym:
    if base.dtype.is_float or exponent.dtype == base.dtype:
        return base ** exponent.cast(base.dtype)
    if exponent.dtype.is_integer:
        return base ** exponent.cast(base.dtype)
    return (base.cast(f64) ** exponent.cast(f64)).cast(base.dtype)


@op("Sum", since=8)
def sum_(call: Call, *xs: Sym) -> Sym:
    total = _first(call, xs)
    for x in xs[1:]:
        total = total + x
    return total


@op("Mean", since=8)
def mean(call: Call, *xs: Sym) -> Sym:
    return sum_(call, *xs) / len(xs)


@op("Max", since=8)
def maximum(call: Call, *xs: Sym) -> Sym:
    first = _first(call, xs)
    if len(xs) <= 2:
        return first.maximum(xs[1]) if len(xs) == 2 else first
    return _stacked(*xs).max([0])


@op("Min", since=8)
def minimum(call: Call, *xs: Sym) -> Sym:
    first = _first(call, xs)
    if len(xs) <= 2:
        return first.minimum(xs[1]) if len(xs) == 2 else first
    return _stacked(*xs).min([0])


def _first(call: Call, xs: tuple[Sym, ...]) -> Sym:
    call.require(bool(xs), "has no operands")
    return xs[0]


def _stacked(*xs: Sym) -> Sym:
    """Return the operands along a new first dimension, so that equal extremes share alike."""
    rows = [x.expand_dims([0]) for x in broadcast_together(*xs)]
    return rows[0].concat(rows[1:], 0)


@op("Clip", since=6)
def clip_attribute(call: Call, x: Sym) -> Sym:
    low, high = call.real("min", -3.4028234663852886e38), call.real("max", 3.4028234663852886e38)
    return x.clip(low, high)


@op("Clip", since=11)
def clip(call: Call, x: Sym, min: Sym | None = None, max: Sym | None = None) -> Sym:
    known = all(b is None or call.is_known(b) for b in (min, max))
    if known:
        low = -math.inf if min is None else call.scalar(min, "the lower bound")
        high = math.inf if max is None else call.scalar(max, "the upper bound")
        return x.clip(low, high)
    # A bound wins over a value beyond it, and the upper over the lower one.
    if min is not None:
        x = (x < min).where(min, x)
    if max is not None:
        x = (x > max).where(max, x)
    return x


@op("Einsum", since=12)
def einsum(call: Call, *xs: Sym) -> Sym:
    terms, result = _equation(call, [x.rank for x in xs])
    plain = [_diagonal(call, x, term) for x, term in zip(xs, terms, strict=True)]
    (total, names), *rest = plain
    for i, (x, term) in enumerate(rest):
        wanted = set(result).union(*(later for _, later in rest[i + 1 :]))
        total, names = _pair(total, names, x, term, wanted)
    gone = [i for i, n in enumerate(names) if n not in result]
    total = total.sum(gone) if gone else total
    names = "".join(n for n in names if n in result)
    return total.transpose([names.index(n) for n in result]) if len(names) > 1 else total


def _diagonal(call: Call, x: Sym, names: str) -> tuple[Sym, str]:
    """Return an operand without the dimensions that repeat the name of another: its diagonal along both."""
    while len(set(names)) < len(names):
        name = next(n for n in names if names.count(n) > 1)
        i = names.index(name)
        j = names.index(name, i + 1)
        n = x.shape[i]
        call.require(n == x.shape[j], f"{name!r} stands for {n} and for {x.shape[j]} in {x.type}")
        rest = [d for d in range(x.rank) if d not in (i, j)]
        sizes = [x.shape[d] for d in rest]
        flat = x.transpose([*rest, i, j]).reshape([*sizes, n * n])
        # Row-major, the elements of a diagonal are n + 1 apart.
        x = flat[..., :: int(n) + 1]
        names = "".join(names[d] for d in rest) + name
    return x, names


def _pair(a: Sym, in_a: str, b: Sym, in_b: str, wanted: set[str]) -> tuple[Sym, str]:
    """Return the product of two operands, summed over the dimensions that nobody wants afterwards."""
    only_a = [i for i, n in enumerate(in_a) if n not in in_b and n not in wanted]
    only_b = [i for i, n in enumerate(in_b) if n not in in_a and n not in wanted]
    a, in_a = (
        (a.sum(only_a) if only_a else a),
        "".join(n for i, n in enumerate(in_a) if i not in only_a),
    )
    b, in_b = (
        (b.sum(only_b) if only_b else b),
        "".join(n for i, n in enumerate(in_b) if i not in only_b),
    )
    shared = [n for n in in_a if n in in_b]
    batch, gone = [n for n in shared if n in wanted], [n for n in shared if n not in wanted]
    product = a.dot_general(
        b,
        contract=([in_a.index(n) for n in gone], [in_b.index(n) for n in gone]),
        batch=([in_a.index(n) for n in batch], [in_b.index(n) for n in batch]),
    )
    free = [n for n in in_a if n not in shared] + [n for n in in_b if n not in shared]
    return product, "".join(batch + free)


def _equation(call: Call, ranks: list[int]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; the dots become digits."""
    text = call.text("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    call.require(len(terms) == len(ranks) > 0, f"equation {text!r} for {len(ranks)} operands")
    dots = max(
        (r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True) if "..." in t),
        default=0,
    )
    call.require(0 <= dots <= 9, f"equation {text!r} does not fit the ranks {ranks}")
    digits = "0123456789"[:dots]
    full = []
    for t, r in zip(terms, ranks, strict=True):
        count = r - len(t.replace("...", ""))
        call.require(count == 0 or "..." in t, f"term {t!r} of the equation does not fit rank {r}")
        full.append(t.replace("...", digits[dots - count :] if count else ""))
        names = full[-1]
        call.require(all(n.isalnum() for n in names), f"equation {text!r} cannot be read")
    if not arrow:
        letters = sorted("".join(full).replace(".", ""))
        once = [n for n in letters if letters.count(n) == 1 and not n.isdigit()]
        return full, digits + "".join(once)
    result = right.replace("...", digits)
    fits = all(result.count(n) == 1 and n in "".join(full) for n in result)
    call.require(fits, f"the result of equation {text!r} names what the operands do not")
    return full, result
