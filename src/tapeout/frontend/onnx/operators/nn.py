"""Matrix products, convolutions, dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import bool_, u32
from tapeout.ops.contraction import Conv
from tapeout.ops.sym import broadcast_shapes

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym


@op("MatMul", since=1)
def matmul(call: Call, a: Sym, b: Sym) -> Sym:
    return a.matmul(b)


@op("Gemm", since=7)
def gemm(call: Call, a: Sym, b: Sym, c: Sym | None = None) -> Sym:
    for name, x in (("a", a), ("b", b)):
        call.require(x.rank == 2, f"operand {name} must be a matrix, it is {x.type}")
    rows, columns = call.flag("transA"), call.flag("transB")
    y = a.dot_general(b, contract=((0 if rows else 1,), (1 if columns else 0,)))
    alpha, beta = call.real("alpha", 1.0), call.real("beta", 1.0)
    y = _scaled(call, y, alpha)
    if c is None or beta == 0.0:
        return y
    fits = broadcast_shapes(c.shape, y.shape) == y.shape
    call.require(fits, f"operand c is {c.type}, which does not repeat to {y.type}")
    return y + _scaled(call, c, beta)


def _scaled(call: Call, x: Sym, factor: float) -> Sym:
    if factor == 1.0:
        return x
    whole = x.dtype.is_float or factor == int(factor)
    call.require(whole, f"a factor of {factor} does not fit {x.dtype}")
    return x * factor


@dataclass(frozen=True)
class Sliding:
    """How a window slides over the spatial dimensions.

    Attributes:
        kernel: Sizes of the window.
        strides: Steps of the window.
        dilations: Steps inside of the window.
        low: Padding in front.
        high: Padding behind.
        extra: How far the last window reaches beyond the padding (rounding up).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    extra: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """How far behind the operand the last window may reach."""
        return tuple(h + e for h, e in zip(self.high, self.extra, strict=True))


def sliding(call: Call, spatial: Sequence[int], kernel: Sequence[int]) -> Sliding:
    """Return how a node's window slides, from its strides, dilations, pads, auto_pad and ceil_mode."""
    n = len(spatial)
    strides = _per_axis(call, "strides", (1,) * n, least=1)
    dilations = _per_axis(call, "dilations", (1,) * n, least=1)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    low, high = _pads(call, spatial, strides, spans)
    up = call.flag("ceil_mode") if call.op_type.endswith("Pool") else False
    extra = [0] * n
    for i in range(n):
        room = spatial[i] + low[i] + high[i] - spans[i]
        if call.op_type == "MaxPool" and -strides[i] < room < 0:
            # Runtimes round the number of windows towards zero, and cut the one window that is left.
            extra[i] = int(-room)
            continue
        call.require(room >= 0, f"a window of {spans[i]} does not fit the size {spatial[i]}")
        if up and room % strides[i]:
            # The last window must start on the operand or on its padding in front.
            starts_inside = (room // strides[i] + 1) * strides[i] < spatial[i] + low[i]
            extra[i] = int(strides[i] - room % strides[i]) if starts_inside else 0
    return Sliding(tuple(kernel), strides, dilations, low, high, tuple(extra))


def _per_axis(call: Call, name: str, default: tuple[int, ...], least: int) -> tuple[int, ...]:
    found = call.integers(name)
    if found is None:
        return default
    fits = len(found) == len(default) and all(least <= n < 1 << 31 for n in found)
    call.require(fits, f"attribute {name!r} is {list(found)} for {len(default)} dimensions")
    return found


def _pads(
    call: Call, spatial: Sequence[int], strides: Sequence[int], spans: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    n = len(spatial)
    auto = call.choice("auto_pad", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"), "NOTSET")
    pads = _per_axis(call, "pads", (0,) * (2 * n), least=0)
    if auto == "NOTSET":
        return pads[:n], pads[n:]
    call.require(not any(pads), f"has pads {list(pads)} and auto_pad {auto}")
    if auto == "VALID":
        return (0,) * n, (0,) * n
    low, high = [], []
    for size, stride, span in zip(spatial, strides, spans, strict=True):
        count = -(-size // stride)
        total = max(int((count - 1) * stride + span - size), 0)
        small, large = total // 2, total - total // 2
        low.append(small if auto == "SAME_UPPER" else large)
        high.append(large if auto == "SAME_UPPER" else small)
    return tuple(low), tuple(high)


@op("Conv", since=1, note="1 to 3 spatial dimensions")
def conv(call: Call, x: Sym, w: Sym, b: Sym | None = None) -> Sym:
    call.require(
        3 <= x.rank <= 5, f"1 to 3 spatial dimensions are supported, the operand is {x.type}"
    )
    call.require(w.rank == x.rank, f"the weight is {w.type}, the operand {x.type}")
    kernel = call.integers("kernel_shape")
    same = kernel is None or tuple(kernel) == tuple(map(int, w.shape[2:]))
    call.require(same, f"kernel_shape is {list(kernel or ())}, the weight is {w.type}")
    s = sliding(call, x.shape[2:], w.shape[2:])
    groups = call.integer("group", 1)
    fits = groups > 0 and x.shape[1] == w.shape[1] * groups and w.shape[0] % groups == 0
    call.require(fits, f"{groups} groups do not fit the operand {x.type} and the weight {w.type}")
    y = x.conv(w, strides=s.strides, low=s.low, high=s.high, dilations=s.dilations, groups=groups)
    if b is None:
        return y
    call.require(b.shape == (w.shape[0],), f"the bias is {b.type}, the weight {w.type}")
    return y + b.broadcast(y.shape, [1])


@op("ConvTranspose", since=1, note="1 to 3 spatial dimensions")
def conv_transpose(call: Call, x: Sym, w: Sym, b: Sym | None = None) -> Sym:
    call.require(
        3 <= x.rank <= 5, f"1 to 3 spatial dimensions are supported, the operand is {x.type}"
    )
    fits = w.rank == x.rank and w.shape[0] == x.shape[1]
    call.require(fits, f"the weight is {w.type}, the operand {x.type}")
    kernel = call.integers("kernel_shape")
    same = kernel is None or tuple(kernel) == tuple(map(int, w.shape[2:]))
    call.require(same, f"kernel_shape is {list(kernel or ())}, the weight is {w.type}")
    groups = call.integer("group", 1)
    call.require(groups > 0 and x.shape[1] % groups == 0, f"{groups} groups do not fit {x.type}")
    low, high, spatial, strides, dilations = _spread(call, x.shape[2:], w.shape[2:])
    made = Conv(
        out="x",
        strides=strides,
        low=low,
        high=high,
        dilations=dilations,
        groups=groups,
        shape=(x.shape[0], w.shape[1] * groups, *spatial),
    )
    y = x.emit(made, x, w)
    if b is None:
        return y
    call.require(b.shape == (y.shape[1],), f"the bias is {b.type}, the result {y.type}")
    return y + b.broadcast(y.shape, [1])


def _spread(
    call: Call, spatial: Sequence[int], kernel: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """Return pads in front and behind, sizes of the result, strides and dilations."""
    n = len(spatial)
    strides = _per_axis(call, "strides", (1,) * n, least=1)
    dilations = _per_axis(call, "dilations", (1,) * n, least=1)
    more = _per_axis(call, "output_padding", (0,) * n, least=0)
    pads = _per_axis(call, "pads", (0,) * (2 * n), least=0)
    auto = call.choice("auto_pad", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"), "NOTSET")
    wanted = call.integers("output_shape")
    low, high, sizes = list(pads[:n]), list(pads[n:]), []
    for i in range(n):
        span = (kernel[i] - 1) * dilations[i] + 1
        whole = (spatial[i] - 1) * strides[i] + span + more[i]
        if wanted is not None or auto.startswith("SAME"):
            size = spatial[i] * strides[i] if wanted is None else wanted[-n:][i]
            total = int(whole - size)
            less, rest = total // 2, total - total // 2
            low[i], high[i] = (less, rest) if auto == "SAME_UPPER" else (rest, less)
        sizes.append(whole - low[i] - high[i])
    call.require(all(s > 0 for s in sizes), f"the result would have the sizes {sizes}")
    return tuple(low), tuple(high), tuple(sizes), strides, dilations


@op("Dropout", since=7, note="mode decides")
def dropout_attribute(call: Call, x: Sym) -> tuple[Sym, Sym | None]:
    return _dropout(call, x, call.real("ratio", 0.5), call.mode == "train")


@op("Dropout", since=12, note="ratio, training_mode: known at import; mode decides")
def dropout(
    call: Call, x: Sym, ratio: Sym | None = None, training_mode: Sym | None = None
) -> tuple[Sym, Sym | None]:
    call.skip("seed")  # the seed is the trainer's, so that a run can be repeated and resumed
    active = call.mode == "train"
    if call.mode == "as-exported" and training_mode is not None:
        active = bool(call.scalar(training_mode, "training_mode"))
    share = 0.5 if ratio is None else float(call.scalar(ratio, "the ratio"))
    return _dropout(call, x, share, active)


def _dropout(call: Call, x: Sym, ratio: float, active: bool) -> tuple[Sym, Sym | None]:
    call.require(0.0 <= ratio <= 1.0, f"the ratio is {ratio}, not between 0 and 1")
    if not active or ratio == 0.0:
        return x, call.constant(True, bool_).broadcast_to(x.shape)
    if ratio == 1.0:
        return x * 0, call.constant(False, bool_).broadcast_to(x.shape)
    limit = min(round(ratio * (1 << 32)), (1 << 32) - 1)
    kept = call.random_bits(x.shape) >= call.constant(limit, u32)
    return kept.where(x * (1.0 / (1.0 - ratio)), x.zeros_like()), kept
