"""Matrix products and convolutions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.export.onnx.table import spells
from tapeout.ir.dtype import bf16, f16, f32, f64, i64
from tapeout.ops import contraction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.export.onnx.writer import Writer
    from tapeout.ir.dtype import DType
    from tapeout.ir.graph import Node
    from tapeout.ir.type import TensorType


@spells("dot_general")
def dot_general(w: Writer, node: Node, a: str, b: str) -> str:
    op = node.op
    assert isinstance(op, contraction.DotGeneral)
    ta, tb = (v.type for v in node.operands)
    if _is_gemm(op, ta, tb):
        return w.emit(
            "Gemm", a, b, transA=int(op.contract_a == (0,)), transB=int(op.contract_b == (1,))
        )
    through = _detour(ta.dtype)
    if through is not None:
        a, b = w.cast(a, through), w.cast(b, through)
    left = _matrix(w, a, ta, op.batch_a, op.contract_a, contracted_last=True)
    right = _matrix(w, b, tb, op.batch_b, op.contract_b, contracted_last=False)
    y = w.reshape(w.emit("MatMul", left, right), node.results[0].type.shape)
    return y if through is None else w.cast(y, ta.dtype)


def _is_gemm(op: contraction.DotGeneral, ta: TensorType, tb: TensorType) -> bool:
    """Whether it is a product of two matrices, which are read as they lie."""
    matrices = ta.rank == tb.rank == 2 and len(op.contract_a) == 1 and not op.batch_a
    return matrices and ta.dtype in (f16, f32, f64)


def _detour(dtype: DType) -> DType | None:
    """Return the type to compute in where runtimes have no products of this one."""
    if dtype.name in ("i8", "i16", "u8", "u16"):
        return i64
    return f32 if dtype == bf16 else None


def _matrix(
    w: Writer,
    x: str,
    type_: TensorType,
    batch: Sequence[int],
    contract: Sequence[int],
    *,
    contracted_last: bool,
) -> str:
    """Return an operand as a batch of matrices: [batch, free, contracted], or the last two swapped."""
    free = [d for d in range(type_.rank) if d not in (*batch, *contract)]
    pair = (free, list(contract)) if contracted_last else (list(contract), free)
    x = w.transpose(x, [*batch, *pair[0], *pair[1]])
    sizes = [math.prod(type_.shape[d] for d in dims) for dims in pair]
    return w.reshape(x, [*(type_.shape[d] for d in batch), *sizes])


@spells("conv")
def conv(w: Writer, node: Node, first: str, second: str) -> str:
    op = node.op
    assert isinstance(op, contraction.Conv)
    spelling = {"y": _forward, "x": _data, "w": _weight}[op.out]
    dtype = node.operands[0].type.dtype
    if dtype != bf16:
        return spelling(w, node, op, first, second)
    return w.cast(spelling(w, node, op, w.cast(first, f32), w.cast(second, f32)), dtype)


def _cropped(
    w: Writer, x: str, shape: Sequence[int], op: contraction.Conv
) -> tuple[str, list[int], list[int], list[int]]:
    """Return the operand with negative padding cut off, its spatial sizes, and the padding that is left."""
    sizes = list(shape[2:])
    for i, (lo, hi) in enumerate(zip(op.low, op.high, strict=True)):
        if lo < 0 or hi < 0:
            x = w.narrow(x, 2 + i, max(-lo, 0), sizes[i] - max(-hi, 0))
            sizes[i] += min(lo, 0) + min(hi, 0)
    low, high = ([max(n, 0) for n in side] for side in (op.low, op.high))
    return x, sizes, low, high


def _forward(w: Writer, node: Node, op: contraction.Conv, x: str, weight: str) -> str:
    x, _, low, high = _cropped(w, x, node.operands[0].type.shape, op)
    return w.emit(
        "Conv",
        x,
        weight,
        strides=list(op.strides),
        dilations=list(op.dilations),
        pads=[*low, *high],
        group=op.groups,
    )


def _data(w: Writer, node: Node, op: contraction.Conv, y: str, weight: str) -> str:
    """The data gradient is a transposed convolution; rows that no window reached come back as zeros."""
    kernel = node.operands[1].type.shape[2:]
    counts = node.operands[0].type.shape[2:]
    full = []
    for i, (k, n) in enumerate(zip(kernel, counts, strict=True)):
        reach = (w.static(k) - 1) * op.dilations[i] + 1
        full.append((w.static(n) - 1) * op.strides[i] + reach)
    x = w.emit(
        "ConvTranspose",
        y,
        weight,
        strides=list(op.strides),
        dilations=list(op.dilations),
        group=op.groups,
    )
    # Everything the windows covered, from -low on; cut and fill it to the operand's size.
    low = [-lo for lo in op.low]
    high = [w.static(n) - f + lo for n, f, lo in zip(op.shape[2:], full, op.low, strict=True)]
    for i, (lo, hi) in enumerate(zip(low, high, strict=True)):
        if lo < 0 or hi < 0:
            x = w.narrow(x, 2 + i, max(-lo, 0), full[i] - max(-hi, 0))
    before, after = ([0, 0, *(max(n, 0) for n in side)] for side in (low, high))
    if not any(before) and not any(after):
        return x
    dtype = node.results[0].type.dtype
    zero = w.scalar(0, f32 if dtype == bf16 else dtype)
    return w.emit("Pad", x, w.ints([*before, *after]), zero)


def _weight(w: Writer, node: Node, op: contraction.Conv, x: str, y: str) -> str:
    """The weight gradient convolves the operand with the cotangent: channels are the batch, images the channels."""
    tx, ty = (v.type.shape for v in node.operands)
    x, sizes, low, high = _cropped(w, x, tx, op)
    n, g = tx[0], op.groups
    c, f = w.static(tx[1]) // g, w.static(ty[1]) // g
    d = len(sizes)
    spatial = list(range(3, 3 + d))
    images = w.reshape(
        w.transpose(w.reshape(x, [n, g, c, *sizes]), [2, 1, 0, *spatial]), [c, g * n, *sizes]
    )
    counts = list(ty[2:])
    kernels = w.reshape(
        w.transpose(w.reshape(y, [n, g, f, *counts]), [1, 2, 0, *spatial]), [g * f, n, *counts]
    )
    made = w.emit(
        "Conv",
        images,
        kernels,
        strides=list(op.dilations),
        dilations=list(op.strides),
        pads=[*low, *high],
        group=g,
    )
    # Taps beyond the kernel come out where the last window left something of the operand over.
    kernel = [int(k) for k in op.shape[2:]]
    axes = list(range(2, 2 + d))
    made = w.emit("Slice", made, w.ints([0] * d), w.ints(kernel), w.ints(axes))
    return w.transpose(made, [1, 0, *axes])
