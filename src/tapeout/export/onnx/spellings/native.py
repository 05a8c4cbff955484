"""Operations that ONNX has itself: read back, they are the same operation with the same gradient at its corners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.export.onnx.table import spells_if
from tapeout.ir.dtype import f16, f32, f64
from tapeout.ops.composite.pool import MaxPool
from tapeout.ops.composite.softmax import LogSoftmax, LogSumExp, Softmax
from tapeout.ops.elementwise import Clip

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from tapeout.export.onnx.writer import Writer
    from tapeout.ir.graph import Node, Value

# operation: (operator, attributes of the same names)
_FUNCTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("Relu", ()),
    "leaky_relu": ("LeakyRelu", ("alpha",)),
    "thresholded_relu": ("ThresholdedRelu", ("alpha",)),
    "elu": ("Elu", ("alpha",)),
    "selu": ("Selu", ("alpha", "gamma")),
    "shrink": ("Shrink", ("bias", "lambd")),
    "hard_sigmoid": ("HardSigmoid", ("alpha", "beta")),
    "hard_swish": ("HardSwish", ()),
    "softplus": ("Softplus", ()),
    "softsign": ("Softsign", ()),
    "mish": ("Mish", ()),
}
_FLOATS = (f16, f32, f64)


def _function(op_type: str, names: tuple[str, ...]) -> Callable[..., str]:
    def write(w: Writer, node: Node, *xs: str) -> str:
        return w.emit(op_type, *xs, **{n: float(getattr(node.op, n)) for n in names})

    return write


def _is_single(node: Node, read: Container[Value]) -> bool:
    """In f64, onnxruntime computes many of these in f32, and attributes are stored as f32: the body is better."""
    return node.operands[0].type.dtype in (f16, f32) or (
        node.op.name == "relu" and node.operands[0].type.dtype == f64
    )


for _name, (_op_type, _names) in _FUNCTIONS.items():
    spells_if(_name, _is_single)(_function(_op_type, _names))


def _is_float(node: Node, read: Container[Value]) -> bool:
    return node.operands[0].type.dtype in _FLOATS


@spells_if("clip", _is_float)
def clip(w: Writer, node: Node, x: str) -> str:
    assert isinstance(node.op, Clip)
    # A bound that is left out is the greatest finite number to some runtimes.
    dtype = node.operands[0].type.dtype
    return w.emit("Clip", x, w.scalar(node.op.low, dtype), w.scalar(node.op.high, dtype))


@spells_if("softmax", _is_float)
def softmax(w: Writer, node: Node, x: str) -> str:
    assert isinstance(node.op, Softmax)
    return w.emit("Softmax", x, axis=int(node.op.axis))


@spells_if("log_softmax", _is_float)
def log_softmax(w: Writer, node: Node, x: str) -> str:
    assert isinstance(node.op, LogSoftmax)
    return w.emit("LogSoftmax", x, axis=int(node.op.axis))


def _has_axes(node: Node, read: Container[Value]) -> bool:
    assert isinstance(node.op, LogSumExp)
    return _is_float(node, read) and bool(node.op.axes)


@spells_if("logsumexp", _has_axes)
def log_sum_exp(w: Writer, node: Node, x: str) -> str:
    assert isinstance(node.op, LogSumExp)
    return w.emit("ReduceLogSumExp", x, w.ints(node.op.axes), keepdims=0)


def _only_values(node: Node, read: Container[Value]) -> bool:
    """ONNX counts the place in the whole operand, we in the window; and padding must be less than a window."""
    op = node.op
    assert isinstance(op, MaxPool)
    pads = [*zip(op.low, op.kernel, strict=True), *zip(op.high, op.kernel, strict=True)]
    small = all(0 <= p < k for p, k in pads) and len(op.kernel) <= 3
    return _is_float(node, read) and small and node.results[1] not in read


@spells_if("max_pool", _only_values)
def max_pool(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, MaxPool)
    return w.emit(
        "MaxPool",
        x,
        kernel_shape=list(op.kernel),
        strides=list(op.strides),
        dilations=list(op.dilations),
        pads=[*op.low, *op.high],
    )
