"""The scalar language in ONNX operators: with it every elementwise operation is spelled by its own body."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.export.onnx.writer import BITCAST_OPSET, ELEMENT_TYPES, Term, Writer
from tapeout.ir.affine import Affine, Axis, FloorDiv
from tapeout.ir.dtype import bool_, i32, i64, u8, u16, u32, u64
from tapeout.ir.scalar import ScalarOps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.dtype import DType

_PLAIN = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "neg": "Neg", "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "sin": "Sin", "cos": "Cos", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh",
    "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "tanh": "Tanh", "sigmoid": "Sigmoid", "erf": "Erf",
    "floor": "Floor", "ceil": "Ceil", "round": "Round", "isnan": "IsNaN",
}  # fmt: skip
_COMPARE = {
    "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual",
}  # fmt: skip
_BITS = {"and": ("And", "BitwiseAnd"), "or": ("Or", "BitwiseOr"), "xor": ("Xor", "BitwiseXor")}
_UNSIGNED = {8: u8, 16: u16, 32: u32, 64: u64}

# Element types for which runtimes are known to lack the operator, and the type to compute in.
_DETOURS: dict[str, dict[str, DType]] = {
    "Max": {"i16": i32, "u16": i32, "bool": i32},
    "Min": {"i16": i32, "u16": i32, "bool": i32},
    "Where": {"i16": i32, "u16": i32, "u64": i64, "bool": u8},
    "Less": {"bool": i32}, "LessOrEqual": {"bool": i32}, "Greater": {"bool": i32}, "GreaterOrEqual": {"bool": i32},
    "Pow": dict.fromkeys(("i8", "i16", "u8", "u16", "u32"), i64),
}  # fmt: skip


class OnnxScalars(ScalarOps[Term]):
    """Appends ONNX nodes; a scalar is a whole tensor, constants are of rank 0 and broadcast.

    Args:
        writer: Where nodes go.
        axes: The axes of the result that is being spelled, for index expressions.
    """

    def __init__(self, writer: Writer, axes: Sequence[Axis] = ()) -> None:
        """Speak to a writer."""
        self.writer = writer
        self._axes = list(axes)

    def const(self, value: float, dtype: DType) -> Term:
        return Term(self.writer.scalar(value, dtype), dtype)

    def dtype(self, x: Term) -> DType:
        return x.dtype

    def cast(self, x: Term, dtype: DType) -> Term:
        if x.dtype == dtype:
            return x
        if x.dtype.is_float and dtype.is_integer:
            return self._saturated(x, dtype)
        return Term(self.writer.cast(x.name, dtype), dtype)

    def _saturated(self, x: Term, dtype: DType) -> Term:
        """Float to integer stays in range, NaN gives 0; ONNX leaves both open."""
        low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
        above = self.compare("ge", x, self.like(float(high), x))
        below = self.compare("le", x, self.like(float(low), x))
        outside = self.apply("or", self.apply("or", above, below), self.apply("isnan", x))
        inside = self.select(outside, self.like(0, x), x)
        whole = Term(self.writer.cast(inside.name, dtype), dtype)
        bounded = self.select(below, self.const(low, dtype), whole)
        return self.select(above, self.const(high, dtype), bounded)

    def bitcast(self, x: Term, dtype: DType) -> Term:
        if x.dtype == dtype:
            return x
        if x.dtype.is_integer and dtype.is_integer:
            return Term(self.writer.cast(x.name, dtype), dtype)
        self.writer.opset = BITCAST_OPSET
        return Term(self.writer.emit("BitCast", x.name, to=ELEMENT_TYPES[dtype]), dtype)

    def index(self, index: Affine) -> Term:
        total = self.const(index.const, i64)
        for atom, factor in index.terms:
            total = self.add(total, self.mul(self._atom(atom), self.const(factor, i64)))
        return total

    def _atom(self, atom: object) -> Term:
        if isinstance(atom, Axis):
            place = [n.name for n in self._axes].index(atom.name)
            shape = [1] * len(self._axes)
            shape[place] = atom.extent
            return Term(self.writer.reshape(counting(self.writer, atom.extent), shape), i64)
        op_type = "Div" if isinstance(atom, FloorDiv) else "Mod"  # indices are not negative
        inner, by = self.index(atom.of), self.const(atom.by, i64)  # type: ignore[attr-defined]
        return Term(self.writer.emit(op_type, inner.name, by.name), i64)

    def apply(self, name: str, *xs: Term) -> Term:
        dtype = xs[-1].dtype
        if name in _PLAIN:
            result = bool_ if name == "isnan" else dtype
            return Term(self.writer.emit(_PLAIN[name], *(x.name for x in xs)), result)
        if name in _COMPARE:
            return self._detour(_COMPARE[name], xs, bool_)
        if name in _BITS:
            op_type = _BITS[name][dtype != bool_]
            return Term(self.writer.emit(op_type, *(x.name for x in xs)), dtype)
        spelled: Term = getattr(self, f"_{name}")(*xs)
        return spelled

    def _detour(self, op_type: str, xs: Sequence[Term], result: DType | None = None) -> Term:
        """Return the node, computed in another type where runtimes lack this one."""
        dtype = xs[-1].dtype
        through = _DETOURS.get(op_type, {}).get(dtype.name)
        if through is None:
            made = self.writer.emit(op_type, *(x.name for x in xs))
            return Term(made, result or dtype)
        wide = [self.writer.cast(x.name, through) if x.dtype == dtype else x.name for x in xs]
        # The condition of a choice among bools is a bool itself and stays one.
        if op_type == "Where":
            wide[0] = xs[0].name
        made = self.writer.emit(op_type, *wide)
        return Term(made, result) if result else Term(self.writer.cast(made, dtype), dtype)

    # -- what ONNX has no single operator for -----------------------------------------------------

    def _ne(self, x: Term, y: Term) -> Term:
        return Term(self.writer.emit("Not", self.compare("eq", x, y).name), bool_)

    def _max(self, x: Term, y: Term) -> Term:
        return self._extreme("Max", "Or", x, y)

    def _min(self, x: Term, y: Term) -> Term:
        return self._extreme("Min", "And", x, y)

    def _extreme(self, op_type: str, of_bools: str, x: Term, y: Term) -> Term:
        if x.dtype == bool_:
            return Term(self.writer.emit(of_bools, x.name, y.name), bool_)
        return self._detour(op_type, (x, y))

    def _select(self, condition: Term, if_true: Term, if_false: Term) -> Term:
        return self._detour("Where", (condition, if_true, if_false))

    def _not(self, x: Term) -> Term:
        return Term(self.writer.emit("Not" if x.dtype == bool_ else "BitwiseNot", x.name), x.dtype)

    def _isinf(self, x: Term) -> Term:
        return self.compare("eq", self.abs(x), self.like(math.inf, x))

    def _fma(self, x: Term, y: Term, z: Term) -> Term:
        return self.add(self.mul(x, y), z)

    def _div(self, x: Term, y: Term) -> Term:
        if x.dtype.is_float:
            return Term(self.writer.emit("Div", x.name, y.name), x.dtype)
        zero, one = self.like(0, y), self.like(1, y)
        nothing = self.compare("eq", y, zero)
        safe = self.select(nothing, one, y)
        # The least integer by -1 stops the machine in some runtimes.
        turned = None
        if x.dtype.kind == "i":
            turned = self.compare("eq", y, self.like(-1, y))
            safe = self.select(turned, one, safe)
        plain = Term(self.writer.emit("Div", x.name, safe.name), x.dtype)
        if turned is not None:
            plain = self.select(turned, self.neg(x), plain)
        return self.select(nothing, zero, plain)

    def _rem(self, x: Term, y: Term) -> Term:
        if x.dtype.is_float:
            return Term(self.writer.emit("Mod", x.name, y.name, fmod=1), x.dtype)
        return self.select(
            self.compare("eq", y, self.like(0, y)),
            self.like(0, x),
            self.sub(x, self.mul(self._div(x, y), y)),
        )

    def _pow(self, x: Term, y: Term) -> Term:
        return self._detour("Pow", (x, y))

    def _rsqrt(self, x: Term) -> Term:
        return Term(self.writer.emit("Reciprocal", self.sqrt(x).name), x.dtype)

    def _tan(self, x: Term) -> Term:
        return self._div(self.apply("sin", x), self.apply("cos", x))

    def _trunc(self, x: Term) -> Term:
        below = self.compare("lt", x, self.like(0, x))
        return self.select(below, self.apply("ceil", x), self.apply("floor", x))

    def _expm1(self, x: Term) -> Term:
        """`tanh(x/2) * (exp(x) + 1)` is exact near 0, where `exp(x) - 1` cancels."""
        half = self.mul(x, self.like(0.5, x))
        return self.mul(self.tanh(half), self.add(self.exp(x), self.like(1, x)))

    def _log1p(self, x: Term) -> Term:
        """`log(u) * x / (u - 1)` with `u = 1 + x` takes back the rounding of `u`."""
        one = self.like(1, x)
        u = self.add(x, one)
        d = self.sub(u, one)
        ratio = self.select(self.compare("eq", d, x), one, self._div(x, d))
        return self.select(self.compare("eq", d, self.like(0, x)), x, self.mul(self.log(u), ratio))

    def _atan2(self, y: Term, x: Term) -> Term:
        """The quadrant by signs, those of zeros included; two infinities count as two ones."""
        far = self.apply("and", self.apply("isinf", y), self.apply("isinf", x))
        y, x = (self.select(far, self._sign(v), v) for v in (y, x))
        behind, down = self._negative(x), self._negative(y)
        origin = self.apply("and", *(self.compare("eq", v, self.like(0, v)) for v in (y, x)))
        slope = self.select(origin, y, self._div(y, x))
        plain = self.apply("atan", slope)
        pi = self.like(math.pi, x)
        turn = self.select(down, self.neg(pi), pi)
        # Behind the axis the slope has the wrong sign; a zero slope is +0 or -0 there.
        beside = self.select(origin, turn, self.add(plain, turn))
        proper = self._not(self.apply("or", origin, self.apply("isnan", y)))
        upright = self.apply("and", self.compare("eq", x, self.like(0, x)), proper)
        half = self.mul(turn, self.like(0.5, x))
        front = self.select(upright, half, plain)
        return self.select(self.apply("or", self._not(behind), upright), front, beside)

    def _sign(self, x: Term) -> Term:
        return Term(self.writer.emit("Sign", x.name), x.dtype)

    def _negative(self, x: Term) -> Term:
        """Return whether a float is below zero or the negative zero."""
        zero = self.like(0, x)
        inverse = Term(self.writer.emit("Reciprocal", x.name), x.dtype)
        below = self.compare("lt", x, zero)
        return self.apply(
            "or",
            below,
            self.apply("and", self.compare("eq", x, zero), self.compare("lt", inverse, zero)),
        )

    def _shl(self, x: Term, by: Term) -> Term:
        return self._shift("LEFT", x, by, self.like(0, x))

    def _shr(self, x: Term, by: Term) -> Term:
        if x.dtype.kind == "u":
            return self._shift("RIGHT", x, by, self.like(0, x))
        # ONNX shifts unsigned numbers only: the complement of a negative one is shifted instead.
        negative = self.compare("lt", x, self.like(0, x))
        complement = self.select(negative, self._not(x), x)
        shifted = self._shift("RIGHT", complement, by, self.like(0, x))
        return self.select(negative, self._not(shifted), shifted)

    def _shift(self, direction: str, x: Term, by: Term, beyond: Term) -> Term:
        unsigned = _UNSIGNED[x.dtype.bits]
        a, b = self.bitcast(x, unsigned), self.bitcast(by, unsigned)
        too_far = self.compare("ge", b, self.like(x.dtype.bits, b))
        safe = self.select(too_far, self.like(0, b), b)
        made = self.writer.emit("BitShift", a.name, safe.name, direction=direction)
        return self.select(too_far, beyond, self.bitcast(Term(made, unsigned), x.dtype))


def counting(writer: Writer, n: int) -> str:
    """Return the i64 vector 0, 1, ... n-1."""
    zero, one = (writer.scalar(x, i64) for x in (0, 1))
    return writer.emit("Range", zero, writer.count(n), one)
