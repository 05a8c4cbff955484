"""Reading kernels at level L from text: the mirror image of `kernel.text`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from tapeout.ir import dtype as dtypes
from tapeout.ir.dtype import DType, i64
from tapeout.ir.scan import Scanner
from tapeout.kernel import loops
from tapeout.kernel.compute import Numerics
from tapeout.kernel.text import ACCESS, INFIX, literal_type, natural_type, proper_number
from tapeout.support.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.kernel.text import Type

_LANES = re.compile(
    r"([A-Za-z]+[0-9]*?)x([0-9]{1,5})(?![A-Za-z0-9_.])|([A-Za-z]+[0-9]*)(?![A-Za-z0-9_.])", re.ASCII
)
_NUMBER = re.compile(r"[0-9]{1,9}(?![0-9A-Za-z_.])", re.ASCII)
_KINDS: tuple[loops.LoopKind, ...] = ("grid", "unroll", "group", "lane")
_OPS = {sign: name for name, sign in INFIX.items()}
_MODES = {word: access for access, word in ACCESS.items()}


def parse_kernel(text: str, file: str = "") -> loops.Kernel:
    """Return the kernel that a text describes; it is not verified.

    Raises:
        ParseError: The text breaks the grammar, or names something unknown; names line and column.
    """
    s = Scanner(text, file)
    kernel = KernelParser(s).kernel()
    s.expect_end()
    return kernel


class KernelParser:
    """Reads one kernel."""

    def __init__(self, scanner: Scanner) -> None:
        """Read where `scanner` stands."""
        self.s = scanner
        self.vars: dict[str, Type] = {}
        self.buffers: dict[str, tuple[DType, int]] = {}
        self.abbreviated: list[loops.Expr] = []
        self._heads: dict[str, Callable[[], loops.Expr]] = {
            "cast": self._cast,
            "bitcast": self._bitcast,
            "splat": self._splat,
            "ramp": self._ramp,
            "lanes": self._lanes,
            "cross": self._cross,
        }

    def kernel(self) -> loops.Kernel:
        """Read `kernel name(params) { … }`."""
        s = self.s
        s.expect_word("kernel")
        name = s.name("the kernel's name")
        s.expect("(")
        params: list[loops.Param] = []
        if not s.take(")"):
            params.append(self._param())
            while s.take(","):
                params.append(self._param())
            s.expect(")")
        self._open()
        numerics = self._numerics() if s.peek_word() == "numerics" else Numerics()
        body = self._block()
        self._close()
        return loops.Kernel(name, tuple(params), body, numerics)

    def _open(self) -> None:
        self.s.expect("{")
        self.s.end_line()

    def _close(self) -> None:
        self.s.expect("}")
        self.s.end_line()

    def _param(self) -> loops.Param:
        s = self.s
        access = _MODES[s.expect_word(*_MODES)]
        name = s.name("a buffer")
        s.expect(":")
        dtype, _ = self._type(scalar=True)
        size = self._count()
        align = s.integer("an alignment") if s.take_word("align") else 64
        self.buffers[name] = (dtype, 1)
        return loops.Param(name, dtype, size, access, align)

    def _count(self) -> int:
        self.s.expect("[")
        count = self.s.integer("a number of elements")
        self.s.expect("]")
        return count

    def _numerics(self) -> Numerics:
        s = self.s
        s.expect_word("numerics")
        found = []
        for word in ("lanes", "accumulators", "partials"):
            s.expect_word(word)
            found.append(s.integer("a number"))
        extra: dict[str, int] = {}
        if s.take("{"):
            while not extra or s.take(","):
                key = s.name("a fact")
                s.expect("=")
                extra[key] = s.integer("a number")
            s.expect("}")
        s.end_line()
        lanes, accumulators, partials = found
        return Numerics(lanes, accumulators, partials, extra)

    def _type(self, *, scalar: bool = False) -> Type:
        s = self.s
        start = s.pos
        found = s.match(_LANES)
        if found is None:
            s.fail("an element type is expected")
        name = found.group(1) or found.group(3)
        dtype = dtypes.BY_NAME.get(name)
        if dtype is None:
            s.fail(f"no element type is called {name!r}", start, nearest(name, dtypes.BY_NAME))
        lanes = int(found.group(2) or 1)
        if scalar and lanes != 1:
            s.fail("a buffer has one element type, without lanes", start)
        return dtype, lanes

    # -- statements ---------------------------------------------------------------------------------

    def _block(self) -> tuple[loops.Stmt, ...]:
        s = self.s
        out: list[loops.Stmt] = []
        with s.deeper():
            while not s.sees("}"):
                if s.sees("$"):
                    self._abbreviation()
                else:
                    out.append(self._statement())
        return tuple(out)

    def _abbreviation(self) -> None:
        """Read `$3: f32x8 = …`: an expression, not a statement."""
        s = self.s
        start = s.pos
        s.expect("$")
        found = s.match(_NUMBER)
        expected = len(self.abbreviated)
        if found is None or int(found.group()) != expected:
            s.fail(f"${expected} is expected: abbreviations are numbered in order", start)
        s.expect(":")
        type_ = self._type()
        s.expect("=")
        value = self._expr()
        if (value.dtype, value.lanes) != type_:
            s.fail(f"the expression is {value.dtype}x{value.lanes}", start)
        self.abbreviated.append(value)
        s.end_line()

    def _statement(self) -> loops.Stmt:
        s = self.s
        if s.sees("%"):
            return self._let()
        word = s.expect_word("for", "if", "store", "alloc", "barrier")
        if word == "for":
            return self._for()
        if word == "if":
            return self._if()
        if word == "store":
            return self._store()
        if word == "alloc":
            return self._alloc()
        scope = s.expect_word("group", "lane")
        s.end_line()
        return loops.Barrier("group" if scope == "group" else "lane")

    def _let(self) -> loops.Let:
        s = self.s
        name = self._variable()
        s.expect(":")
        dtype, lanes = self._type()
        s.expect("=")
        value = self._expr()
        self.vars[name] = (dtype, lanes)
        s.end_line()
        return loops.Let(loops.Var(dtype, lanes, name), value)

    def _variable(self) -> str:
        self.s.expect("%")
        return self.s.name("a variable")

    def _for(self) -> loops.For:
        s = self.s
        name = self._variable()
        s.expect_word("in")
        start = self._expr()
        s.expect("..")
        stop = self._expr()
        step = s.integer("a step") if s.take_word("step") else 1
        kind = self._kind()
        self.vars[name] = (i64, 1)
        self._open()
        body = self._block()
        self._close()
        return loops.For(name, start, stop, step, kind, body)

    def _kind(self) -> loops.LoopKind:
        return next((kind for kind in _KINDS if self.s.take_word(kind)), "serial")

    def _if(self) -> loops.If:
        s = self.s
        condition = self._expr()
        self._open()
        then = self._block()
        s.expect("}")
        otherwise: tuple[loops.Stmt, ...] = ()
        if s.take_word("else"):
            self._open()
            otherwise = self._block()
            s.expect("}")
        s.end_line()
        return loops.If(condition, then, otherwise)

    def _store(self) -> loops.Store:
        s = self.s
        buffer = s.name("a buffer")
        s.expect("[")
        index = self._expr()
        active, mask = self._touched()
        s.expect("]")
        s.expect("=")
        value = self._expr()
        s.end_line()
        return loops.Store(buffer, index, value, active, mask)

    def _alloc(self) -> loops.Alloc:
        s = self.s
        name = s.name("a buffer")
        s.expect(":")
        dtype, lanes = self._type()
        count = self._count()
        word = s.expect_word("register", "local", "shared")
        scope: Literal["register", "local", "shared"] = (
            "register" if word == "register" else "local" if word == "local" else "shared"
        )
        self.buffers[name] = (dtype, lanes if scope == "register" else 1)
        s.end_line()
        return loops.Alloc(name, dtype, lanes, count, scope)

    # -- expressions --------------------------------------------------------------------------------

    def _expr(self) -> loops.Expr:
        """Read an operand, or two of them with + - * between."""
        with self.s.deeper():
            left = self._operand()
            sign = next((sign for sign in _OPS if self.s.take(sign)), None)
            if sign is None:
                return left
            return self._applied(_OPS[sign], (left, self._operand()))

    def _operand(self) -> loops.Expr:
        s = self.s
        abbreviated = s.sees("$")
        expr = self._primary()
        # `b[%i :8]` gives a width, `b[%i]:f32` a type.
        if not s.sees(":") or s.text[s.pos + 1 : s.pos + 2].isdigit():
            return expr
        if abbreviated:
            s.fail("the type of an abbreviation stands at its definition")
        start = s.pos
        s.expect(":")
        dtype, lanes = self._type()
        if isinstance(expr, loops.Const):
            with s.blaming(start):
                return loops.Const(dtype, lanes, proper_number(expr.value, dtype))
        return replace(expr, dtype=dtype, lanes=lanes)

    def _primary(self) -> loops.Expr:
        s = self.s
        if s.take("("):
            inner = self._expr()
            s.expect(")")
            return inner
        if s.sees("$"):
            return self._abbreviated()
        if s.sees("%"):
            name = self._variable()
            dtype, lanes = self.vars.get(name, (i64, 1))
            return loops.Var(dtype, lanes, name)
        start = s.pos
        number = None if s.sees('"') else s.number()
        if number is not None and not s.sees("["):
            return loops.Const(*literal_type(number), number)
        s.pos = start
        return self._named()

    def _abbreviated(self) -> loops.Expr:
        s = self.s
        start = s.pos
        s.expect("$")
        found = s.match(_NUMBER)
        if found is None or int(found.group()) >= len(self.abbreviated):
            s.fail("this abbreviation is not defined above", start)
        return self.abbreviated[int(found.group())]

    def _named(self) -> loops.Expr:
        """Read a load, a function of lanes, or an operation."""
        s = self.s
        name = s.name("an expression")
        if s.sees("["):
            return self._load(name)
        if s.sees("<") and name in self._heads:
            return self._heads[name]()
        s.expect("(")
        args: list[loops.Expr] = []
        if not s.take(")"):
            args.append(self._expr())
            while s.take(","):
                args.append(self._expr())
            s.expect(")")
        return self._applied(name, tuple(args))

    def _applied(self, name: str, args: tuple[loops.Expr, ...]) -> loops.Expr:
        draft = loops.Apply(i64, 1, name, args)
        last = (args[-1].dtype, args[-1].lanes) if args else (i64, 1)
        return loops.Apply(*natural_type(draft, last), name, args)

    def _load(self, buffer: str) -> loops.Load:
        s = self.s
        s.expect("[")
        index = self._expr()
        width = s.integer("a number of lanes") if s.take(":") else 0
        active, mask = self._touched()
        dtype, lanes = self.buffers.get(buffer, (dtypes.f32, 1))
        other: float = proper_number(0, dtype)
        if s.take_word("else"):
            start = s.pos
            number = s.number()
            if number is None:
                s.fail("a number is expected")
            with s.blaming(start):
                other = proper_number(number, dtype)
        s.expect("]")
        lanes = index.lanes if index.lanes > 1 else lanes
        return loops.Load(dtype, width or lanes, buffer, index, active, mask, other)

    def _touched(self) -> tuple[int | None, loops.Expr | None]:
        s = self.s
        active = s.integer("a number of lanes") if s.take_word("active") else None
        mask = self._expr() if s.take_word("mask") else None
        return active, mask

    def _argument(self) -> loops.Expr:
        self.s.expect("(")
        arg = self._expr()
        self.s.expect(")")
        return arg

    def _dtype_in_brackets(self) -> DType:
        self.s.expect("<")
        dtype, _ = self._type(scalar=True)
        self.s.expect(">")
        return dtype

    def _lanes_in_brackets(self) -> int:
        self.s.expect("<")
        lanes = self.s.integer("a number of lanes")
        self.s.expect(">")
        return lanes

    def _cast(self) -> loops.Expr:
        dtype, arg = self._dtype_in_brackets(), self._argument()
        return loops.Cast(dtype, arg.lanes, arg)

    def _bitcast(self) -> loops.Expr:
        dtype, arg = self._dtype_in_brackets(), self._argument()
        return loops.Bitcast(dtype, arg.lanes, arg)

    def _splat(self) -> loops.Expr:
        lanes, arg = self._lanes_in_brackets(), self._argument()
        return loops.Splat(arg.dtype, lanes, arg)

    def _ramp(self) -> loops.Expr:
        return loops.Ramp(i64, self._lanes_in_brackets(), self._argument())

    def _lanes(self) -> loops.Expr:
        self.s.expect("<")
        combine = self.s.word("a combination")
        self.s.expect(">")
        arg = self._argument()
        return loops.Lanes(arg.dtype, 1, combine, arg)

    def _cross(self) -> loops.Expr:
        s = self.s
        s.expect("<")
        combine = s.word("a combination")
        s.expect(",")
        level = s.expect_word("group", "lane")
        s.expect(">")
        arg = self._argument()
        return loops.Cross(
            arg.dtype, arg.lanes, combine, arg, "group" if level == "group" else "lane"
        )
