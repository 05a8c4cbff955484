"""The operations of `ir.scalar.SCALAR_OPS` as LLVM instructions, on scalars and vectors alike.

Functions that no instruction computes (exp, tanh, …) are not here: `kernel.math.legalize` has rewritten them, because LLVM
would call libm once per lane. No flag lets LLVM reorder or fuse floating-point operations.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from tapeout.codegen.convert import narrow, widen
from tapeout.codegen.text import Value, constant, register_type
from tapeout.ir.dtype import bf16, bool_, f16, f32, i16, i64
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapeout.codegen.text import Function
    from tapeout.ir.dtype import DType
    from tapeout.kernel.target import Target

_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "rem": "frem"}
_INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_FLOAT_ORDER = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_ROUND = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "roundeven", "sqrt": "sqrt"}
_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "max": max,
    "min": min,
    "div": lambda x, y: 0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1),
    "rem": lambda x, y: 0 if y == 0 else abs(x) % abs(y) * (-1 if x < 0 else 1),
}

_ORDER = {name: getattr(operator, name) for name in _FLOAT_ORDER}


class Scalars:
    """Writes operations into a function.

    Args:
        function: Where the instructions go.
        target: Says whether a fused multiply-add is an instruction.
    """

    def __init__(self, function: Function, target: Target) -> None:
        """Write into `function`."""
        self._f = function
        self._target = target
        self._float: dict[str, Callable[[str, list[Value]], Value]] = {
            **dict.fromkeys(_FLOAT, self._plain_float),
            **dict.fromkeys(_ROUND, self._intrinsic),
            **dict.fromkeys(_FLOAT_ORDER, self._compare_float),
            **dict.fromkeys(("max", "min"), self._extreme_float),
            "neg": self._negate_float,
            "abs": self._abs_float,
            "fma": self._fma,
            "dot2": self._dot2,
            "isnan": self._is_nan,
            "isinf": self._is_inf,
            "select": self._select,
        }
        self._integer: dict[str, Callable[[str, list[Value]], Value]] = {
            **dict.fromkeys(_INTEGER, self._plain_integer),
            **dict.fromkeys(_FLOAT_ORDER, self._compare_integer),
            **dict.fromkeys(("max", "min"), self._extreme_integer),
            **dict.fromkeys(("div", "rem"), self._divide),
            **dict.fromkeys(("shl", "shr"), self._shift),
            "neg": self._negate_integer,
            "abs": self._abs_integer,
            "not": self._not,
            "select": self._select,
        }

    def apply(self, op: str, args: Sequence[Value]) -> Value:
        """Return an operation of `SCALAR_OPS` on values of one type and number of lanes."""
        kind = args[-1].dtype
        table = self._float if kind.is_float else self._integer
        make = table.get(op)
        if make is None:
            raise CompileError(
                f"operation {op} on {kind} has no instruction",
                where="codegen",
                hint="run kernel.math.legalize on the kernel first",
            )
        if kind in (f16, bf16) and op not in ("select", "neg", "abs"):
            wide = make(op, [widen(self._f, self._target, x) for x in args])
            return narrow(self._f, self._target, wide, kind) if wide.dtype == f32 else wide
        return make(op, list(args))

    def _made(self, instruction: str, like: Value, dtype: DType | None = None) -> Value:
        return Value(self._f.pure(instruction), dtype or like.dtype, like.lanes)

    def _call(self, name: str, *args: Value) -> Value:
        x = args[0]
        operands = ", ".join(map(str, args))
        return self._made(f"call {x.type} @llvm.{name}.{mangled(x)}({operands})", x)

    # --- floats ---------------------------------------------------------------------------------

    def _plain_float(self, op: str, args: list[Value]) -> Value:
        x, y = args
        return self._made(f"{_FLOAT[op]} {x}, {y.text}", x)

    def _intrinsic(self, op: str, args: list[Value]) -> Value:
        return self._call(_ROUND[op], args[0])

    def _compare_float(self, op: str, args: list[Value]) -> Value:
        x, y = args
        return self._made(f"fcmp {_FLOAT_ORDER[op]} {x}, {y.text}", x, bool_)

    def _extreme_float(self, op: str, args: list[Value]) -> Value:
        # `x > y ? x : y` is one instruction and gives y when either is NaN, so only a NaN in x has
        # to be put back; where one operand is a number it goes first and nothing is left to do.
        x, y = args
        if _is_number(y):
            x, y = y, x
        order = "ogt" if op == "max" else "olt"
        first = self._made(f"fcmp {order} {x}, {y.text}", x, bool_)
        better = self._select("", [first, x, y])
        if _is_number(x):
            return better
        return self._select("", [self._is_nan("", [x]), x, better])

    def _negate_float(self, _: str, args: list[Value]) -> Value:
        x = args[0]
        if x.dtype in (f16, bf16):
            return self._made(f"xor {x}, {constant(-32768, i16, x.lanes).text}", x)
        return self._made(f"fneg {x}", x)

    def _abs_float(self, _: str, args: list[Value]) -> Value:
        x = args[0]
        if x.dtype in (f16, bf16):
            return self._made(f"and {x}, {constant(32767, i16, x.lanes).text}", x)
        return self._call("fabs", x)

    def _fma(self, _: str, args: list[Value]) -> Value:
        # Where the instruction is absent, llvm.fma would become a call of libm per lane.
        if self._target.fma:
            return self._call("fma", *args)
        x, y, z = args
        return self._plain_float("add", [self._plain_float("mul", [x, y]), z])

    def _dot2(self, _: str, args: list[Value]) -> Value:
        a, b, total = args
        pairs = f"<{2 * total.lanes} x bfloat>"
        x, y = (self._f.pure(f"bitcast {v} to {pairs}") for v in (a, b))
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * total.lanes}"
        return self._made(f"call {total.type} @{name}({total}, {pairs} {x}, {pairs} {y})", total)

    def _is_nan(self, _: str, args: list[Value]) -> Value:
        return self._made(f"fcmp uno {args[0]}, {args[0].text}", args[0], bool_)

    def _is_inf(self, _: str, args: list[Value]) -> Value:
        size = self._abs_float("", args)
        infinity = constant(float("inf"), size.dtype, size.lanes)
        return self._made(f"fcmp oeq {size}, {infinity.text}", size, bool_)

    # --- integers and bools ----------------------------------------------------------------------

    def _plain_integer(self, op: str, args: list[Value]) -> Value:
        x, y = args
        folded = _fold(op, x, y)
        if folded:
            return folded
        made = self._made(f"{_INTEGER[op]} {x}, {y.text}", x)
        return self._spaced(op, x, y, made) if x.steps and y.steps else made

    def _spaced(self, op: str, x: Value, y: Value, made: Value) -> Value:
        """Say how far the lanes of `x op y` lie apart, where that is known of x and y."""
        a, b = Value(x.start, i64), Value(y.start, i64)
        pairs = list(zip(x.steps, y.steps, strict=True))
        if op in ("add", "sub"):
            start = self._plain_integer(op, [a, b])
            steps = tuple(s + t if op == "add" else s - t for s, t in pairs)
        elif op == "mul" and b.number == 0 and len(set(y.steps)) == 1:
            start = self._plain_integer("mul", [a, constant(y.steps[0], i64)])
            steps = tuple(s * t for s, t in pairs)
        elif op == "mul" and a.number == 0 and len(set(x.steps)) == 1:
            return self._spaced(op, y, x, made)
        else:
            return made
        return made._replace(start=start.text, steps=steps)

    def _compare_integer(self, op: str, args: list[Value]) -> Value:
        x, y = args
        if x.number is not None and y.number is not None:
            return constant(_ORDER[op](x.number, y.number), bool_)
        sign = "" if op in ("eq", "ne") else "s" if x.dtype.kind == "i" else "u"
        return self._made(f"icmp {sign}{op} {x}, {y.text}", x, bool_)

    def _extreme_integer(self, op: str, args: list[Value]) -> Value:
        x, y = args
        if x.dtype == bool_:
            return self._plain_integer("or" if op == "max" else "and", args)
        sign = "s" if x.dtype.kind == "i" else "u"
        return _fold(op, x, y) or self._call(f"{sign}{op}", x, y)

    def _divide(self, op: str, args: list[Value]) -> Value:
        """Division by 0 gives 0, and the least number by -1 wraps: hardware would trap at both."""
        x, y = args
        folded = _fold(op, x, y)
        if folded:
            return folded
        sign = "s" if x.dtype.kind == "i" else "u"
        if _is_safe_divisor(y):
            return self._made(f"{sign}{op} {x}, {y.text}", x)
        zero, one = constant(0, x.dtype, x.lanes), constant(1, x.dtype, x.lanes)
        by_zero = self._compare_integer("eq", [y, zero])
        unsafe, result = by_zero, zero
        if sign == "s":
            by_minus = self._compare_integer("eq", [y, constant(-1, x.dtype, x.lanes)])
            unsafe = self._plain_integer("or", [by_zero, by_minus])
            result = self._select("", [by_zero, zero, self._negate_integer("", [x])])
        safe = self._select("", [unsafe, one, y])
        quotient = self._made(f"{sign}{op} {x}, {safe.text}", x)
        return quotient if op == "rem" else self._select("", [unsafe, result, quotient])

    def _shift(self, op: str, args: list[Value]) -> Value:
        x, y = args
        bits = x.dtype.bits
        name = "shl" if op == "shl" else "ashr" if x.dtype.kind == "i" else "lshr"
        if _literal(y) in range(bits):
            return self._made(f"{name} {x}, {y.text}", x)
        most = constant(bits - 1, x.dtype, x.lanes)
        inside = self._made(f"icmp ule {y}, {most.text}", y, bool_)
        shifted = self._made(f"{name} {x}, {self._select('', [inside, y, most]).text}", x)
        if name == "ashr":
            return shifted
        return self._select("", [inside, shifted, constant(0, x.dtype, x.lanes)])

    def _negate_integer(self, _: str, args: list[Value]) -> Value:
        return self._plain_integer("sub", [constant(0, args[0].dtype, args[0].lanes), args[0]])

    def _abs_integer(self, _: str, args: list[Value]) -> Value:
        x = args[0]
        if x.dtype.kind == "u":
            return x
        return self._made(f"call {x.type} @llvm.abs.{mangled(x)}({x}, i1 false)", x)

    def _not(self, _: str, args: list[Value]) -> Value:
        x = args[0]
        ones = constant(True if x.dtype == bool_ else -1, x.dtype, x.lanes)
        return self._made(f"xor {x}, {ones.text}", x)

    def _select(self, _: str, args: list[Value]) -> Value:
        condition, x, y = args
        if condition.text in ("true", "false"):
            return x if condition.text == "true" else y
        return self._made(f"select {condition}, {x}, {y}", x)


def mangled(x: Value) -> str:
    """Return the suffix of an intrinsic's name for the type of `x`, such as `v8f32`."""
    name = {"float": "f32", "double": "f64"}.get(register_type(x.dtype), register_type(x.dtype))
    return name if x.lanes == 1 else f"v{x.lanes}{name}"


def _literal(x: Value) -> int | None:
    """The number that an integer operand holds in every lane, if it is a constant."""
    text = x.text.removeprefix(f"splat ({register_type(x.dtype)} ").removesuffix(")")
    return int(text) if text.lstrip("-").isdigit() else None


def _is_safe_divisor(y: Value) -> bool:
    number = _literal(y)
    return number is not None and number not in (0, -1, (1 << y.dtype.bits) - 1)


def _is_number(x: Value) -> bool:
    """Whether a float operand is a constant other than NaN."""
    if x.text.startswith(("%", "<")) or not x.dtype.is_float:
        return False
    bits = int(x.text.rpartition("0x")[2].rstrip(")"), 16)
    return bits & (1 << 63) - 1 <= 0x7FF << 52


def _fold(op: str, x: Value, y: Value) -> Value | None:
    """Compute with indices that are constants, so that unrolled loops leave plain numbers."""
    a, b = x.number, y.number
    if b == 0 and op in ("add", "sub"):
        return x
    if a == 0 and op == "add":
        return y
    if (b == 1 and op == "mul") or (b == 1 and op == "div"):
        return x
    if a == 1 and op == "mul":
        return y
    if a is None or b is None or op not in _FOLD:
        return None
    wrapped = (_FOLD[op](a, b) + (1 << 63)) % (1 << 64) - (1 << 63)
    return constant(wrapped, i64)
