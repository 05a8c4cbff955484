"""Level T as text, for reading only.

map relu(in b0: f32[32,128], in b1: f32[128], out b2: f32[32,128]) @ mlp.onnx:/fc1/Relu
for i in 32, j in 128
b2[i,j] = max(b0[i,j] + b1[j], 0.0)

rows softmax(in b0: f32[32,10], out b1: f32[32,10])
for i in 32
m: f32 = max over j in 10 of b0[i,j]
s: f32 = sum over j in 10 of exp(b0[i,j] - m)
b1[i,j] = div(exp(b0[i,j] - m), s) for j in 10
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.literal import spell_name, spell_number
from tapeout.ir.text import spell_loc
from tapeout.kernel import compute
from tapeout.kernel.text import ACCESS, INFIX, proper_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tapeout.ir.affine import Axis

_LONG = 72
_COMBINE = {"add": "+=", "mul": "*=", "set": "="}


def print_compute(kernel: compute.Kernel) -> str:
    """Return a kernel at level T as text; ends with a newline.

    Expressions that are used more than once or are long are named `$0`, `$1`, … on lines of their own.
    """
    printer = _Printer(kernel)
    return "\n".join([_head(kernel), *printer.body()]) + "\n"


def _head(kernel: compute.Kernel) -> str:
    params = ", ".join(_buffer(b) for b in kernel.buffers)
    loc = f" {spell_loc(kernel.loc)}" if kernel.loc else ""
    name = spell_name(kernel.name) if kernel.name else "_"
    return f"{_kind(kernel)} {name}({params}){loc}"


def _kind(kernel: compute.Kernel) -> str:
    if isinstance(kernel, compute.ContractionKernel):
        return "contraction"
    if isinstance(kernel, compute.ScatterKernel):
        return "scatter"
    reduces = any(isinstance(s, compute.Reduce) for s in kernel.stages)
    return "rows" if reduces else "map"


def _buffer(b: compute.Buffer) -> str:
    shape = ",".join(map(str, b.shape))
    dense = _dense(b.shape)
    strides = "" if b.strides == dense else f" strides [{','.join(map(str, b.strides))}]"
    return f"{ACCESS[b.access]} {spell_name(b.name)}: {b.dtype}[{shape}]{strides}"


def _dense(shape: Sequence[int]) -> tuple[int, ...]:
    out = []
    step = 1
    for n in reversed(shape):
        out.append(step)
        step *= n
    return tuple(reversed(out))


def _axes(axes: Iterable[Axis]) -> str:
    return ", ".join(f"{a.name} in {a.extent}" for a in axes) or "once"


def _parts(e: compute.Expr) -> tuple[compute.Expr, ...]:
    if isinstance(e, compute.Apply):
        return e.args
    if isinstance(e, compute.Cast | compute.Bitcast):
        return (e.arg,)
    if isinstance(e, compute.Load):
        return tuple(i for i in e.index if isinstance(i, compute.Expr))
    return ()


def _postorder(root: compute.Expr, done: set[int]) -> Iterator[compute.Expr]:
    stack: list[tuple[compute.Expr, bool]] = [(root, False)]
    while stack:
        expr, ready = stack.pop()
        if id(expr) in done:
            continue
        if ready:
            done.add(id(expr))
            yield expr
            continue
        stack.append((expr, True))
        stack.extend((p, False) for p in reversed(_parts(expr)))


class _Printer:
    """Prints the body of one kernel."""

    def __init__(self, kernel: compute.Kernel) -> None:
        self.kernel = kernel
        self.spelled: dict[int, str] = {}
        self.lines: list[str] = []
        self.indent = "  "
        self.count = 0
        self.uses: dict[int, int] = {}
        done: set[int] = set()
        for root in self.roots():
            self.uses[id(root)] = self.uses.get(id(root), 0) + 1
            for e in _postorder(root, done):
                for p in _parts(e):
                    self.uses[id(p)] = self.uses.get(id(p), 0) + 1

    def roots(self) -> Iterator[compute.Expr]:
        k = self.kernel
        if isinstance(k, compute.ScatterKernel):
            yield from (i for i in k.index if isinstance(i, compute.Expr))
            yield k.value
            return
        if isinstance(k, compute.ContractionKernel):
            yield from (k.a, k.b)
        yield from (s.value for s in k.stages)

    def body(self) -> list[str]:
        k = self.kernel
        if isinstance(k, compute.ScatterKernel):
            self.scatter(k)
        elif isinstance(k, compute.ContractionKernel):
            self.contraction(k)
        else:
            self.line(f"for {_axes(k.axes)}")
            self.indent = "    "
            for stage in k.stages:
                self.stage(stage)
        return self.lines

    def line(self, text: str) -> None:
        self.lines.append(self.indent + text)

    def scatter(self, k: compute.ScatterKernel) -> None:
        self.line(f"for {_axes(k.axes)}, in order {_axes(k.points)}")
        self.indent = "    "
        value = self.spell(k.value)
        sign = _COMBINE.get(k.combine, f"{k.combine}=")
        self.line(f"{spell_name(k.target)}[{self.index(k.index)}] {sign} {value}")

    def contraction(self, k: compute.ContractionKernel) -> None:
        outer = (*k.batch, *k.m, *k.n)
        self.line(f"for {_axes(outer)}")
        self.indent = "    "
        a, b = self.spell(k.a), self.spell(k.b)
        self.line(f"acc: {k.accumulate} = sum over {_axes(k.k)} of ({a}) * ({b})")
        for stage in k.stages:
            self.stage(stage)

    def stage(self, stage: compute.Stage) -> None:
        value = self.spell(stage.value)
        if isinstance(stage, compute.Reduce):
            over = f"{stage.combine} over {_axes(stage.axes)}"
            self.line(f"{spell_name(stage.name)}: {stage.dtype} = {over} of {value}")
            return
        inner = f" for {_axes(stage.axes)}" if stage.axes else ""
        self.line(f"{spell_name(stage.buffer)}[{self.index(stage.index)}] = {value}{inner}")

    def index(self, index: Iterable[object]) -> str:
        return ",".join(self.spell(i) if isinstance(i, compute.Expr) else str(i) for i in index)

    def spell(self, root: compute.Expr) -> str:
        done = {i for i, text in self.spelled.items() if text.startswith("$")}
        for e in _postorder(root, done):
            text = self.one(e)
            leaf = isinstance(e, compute.Const | compute.Index | compute.Temp)
            long = len(text) > _LONG and e is not root
            if not leaf and (long or self.uses[id(e)] > 1):
                self.line(f"${self.count}: {e.dtype} = {text}")
                text = f"${self.count}"
                self.count += 1
            self.spelled[id(e)] = text
        return self.spelled[id(root)]

    def one(self, e: compute.Expr) -> str:
        if isinstance(e, compute.Const):
            return spell_number(proper_number(e.value, e.dtype))
        if isinstance(e, compute.Index):
            return f"index({e.index})"
        if isinstance(e, compute.Temp):
            return spell_name(e.name)
        if isinstance(e, compute.Load):
            return self.load(e)
        args = [self.spelled[id(p)] for p in _parts(e)]
        if isinstance(e, compute.Cast | compute.Bitcast):
            return f"{type(e).__name__.lower()}<{e.dtype}>({args[0]})"
        assert isinstance(e, compute.Apply)
        if e.op in INFIX and len(args) == 2:
            left, right = (self.operand(p) for p in e.args)
            return f"{left} {INFIX[e.op]} {right}"
        return f"{e.op}({', '.join(args)})"

    def operand(self, e: compute.Expr) -> str:
        text = self.spelled[id(e)]
        infix = isinstance(e, compute.Apply) and e.op in INFIX
        return f"({text})" if infix and not text.startswith("$") else text

    def load(self, e: compute.Load) -> str:
        at = ",".join(
            self.spelled[id(i)] if isinstance(i, compute.Expr) else str(i) for i in e.index
        )
        text = f"{spell_name(e.buffer)}[{at}]"
        if not e.where:
            return text
        guards = " and ".join(map(str, e.where))
        return f"({text} where {guards} else {spell_number(proper_number(e.other, e.dtype))})"
