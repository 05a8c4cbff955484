"""Short ways to write kernels at level L in tests."""

from tapeout.ir.dtype import DType, bool_, f32, i64
from tapeout.kernel import loops
from tapeout.kernel.parse import parse_kernel


def i(name: str) -> loops.Var:
    return loops.Var(i64, 1, name)


def n(value: int) -> loops.Const:
    return loops.Const(i64, 1, value)


def c(value: float, dtype: DType = f32, lanes: int = 1) -> loops.Const:
    return loops.Const(dtype, lanes, value)


def apply(op: str, *args: loops.Expr) -> loops.Apply:
    comparison = op in ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf")
    return loops.Apply(bool_ if comparison else args[-1].dtype, args[-1].lanes, op, args)


def kernel(text: str) -> loops.Kernel:
    """Return the kernel with this body: `kernel("in a: f32[4], out b: f32[4]", …)` needs no braces."""
    params, _, body = text.strip().partition("\n")
    return parse_kernel(f"kernel k({params}) {{\n{body}\n}}\n")
