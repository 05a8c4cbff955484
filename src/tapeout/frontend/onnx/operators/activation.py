"""Activations. What they do at kinks stands in the table of conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.operators.reduce import flattened
from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import f64
from tapeout.ops import elementwise as ew
from tapeout.ops.composite import softmax as sm
from tapeout.ops.sym import broadcast_shapes

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym


@op("Relu", since=6)
def relu(call: Call, x: Sym) -> Sym:
    return x.relu()


@op("Sigmoid", since=6)
def sigmoid(call: Call, x: Sym) -> Sym:
    return x.sigmoid()


@op("Softmax", since=1)
def softmax_flat(call: Call, x: Sym) -> Sym:
    axis = call.integer("axis", 1)
    return flattened(call, x, axis, lambda rows: sm.softmax(rows, 1))


@op("Softmax", since=13)
def softmax(call: Call, x: Sym) -> Sym:
    return sm.softmax(x, call.axis(call.integer("axis", -1), x.rank))


@op("LogSoftmax", since=1)
def log_softmax_flat(call: Call, x: Sym) -> Sym:
    axis = call.integer("axis", 1)
    return flattened(call, x, axis, lambda rows: sm.log_softmax(rows, 1))


@op("LogSoftmax", since=13)
def log_softmax(call: Call, x: Sym) -> Sym:
    return sm.log_softmax(x, call.axis(call.integer("axis", -1), x.rank))


@op("PRelu", since=7)
def prelu(call: Call, x: Sym, slope: Sym) -> Sym:
    fits = broadcast_shapes(x.shape, slope.shape) == x.shape
    call.require(fits, f"the slope {slope.type} does not repeat to {x.type}")
    return x.emit(ew.Prelu(), x, slope.broadcast_to(x.shape))


@op("LeakyRelu", since=6)
def leaky_relu(call: Call, x: Sym) -> Sym:
    return x.unary(ew.LeakyRelu(alpha=call.real("alpha", 0.01)))


@op("ThresholdedRelu", since=10)
def thresholded_relu(call: Call, x: Sym) -> Sym:
    return x.unary(ew.ThresholdedRelu(alpha=call.real("alpha", 1.0)))


@op("Elu", since=6)
def elu(call: Call, x: Sym) -> Sym:
    return x.unary(ew.Elu(alpha=call.real("alpha", 1.0)))


@op("Celu", since=12)
def celu(call: Call, x: Sym) -> Sym:
    alpha = call.real("alpha", 1.0)
    call.require(alpha != 0, "alpha is 0")
    return x.unary(ew.Celu(alpha=alpha))


@op("Selu", since=6)
def selu(call: Call, x: Sym) -> Sym:
    alpha = call.real("alpha", 1.67326319217681884765625)
    return x.unary(ew.Selu(alpha=alpha, gamma=call.real("gamma", 1.05070102214813232421875)))


@op("Gelu", since=20)
def gelu(call: Call, x: Sym) -> Sym:
    return x.unary(ew.Gelu(approximate=call.choice("approximate", ("none", "tanh"), "none")))


@op("Swish", since=24)
def swish(call: Call, x: Sym) -> Sym:
    alpha = call.real("alpha", 1.0)
    return x.unary(ew.Silu()) if alpha == 1.0 else x * (x * alpha).sigmoid()


@op("SwiGLU", since=28)
def swiglu(call: Call, gate: Sym, x: Sym) -> Sym:
    call.require(gate.shape == x.shape, f"the gate is {gate.type}, the operand {x.type}")
    return swish(call, gate) * x


@op("Mish", since=18)
def mish(call: Call, x: Sym) -> Sym:
    return x.unary(ew.Mish())


@op("Softplus", since=1)
def softplus(call: Call, x: Sym) -> Sym:
    return x.unary(ew.Softplus())


@op("Softsign", since=1)
def softsign(call: Call, x: Sym) -> Sym:
    return x.unary(ew.Softsign())


@op("HardSigmoid", since=6)
def hard_sigmoid(call: Call, x: Sym) -> Sym:
    alpha, beta = call.real("alpha", 0.2), call.real("beta", 0.5)
    return x.unary(ew.HardSigmoid(alpha=alpha, beta=beta))


@op("HardSwish", since=14)
def hard_swish(call: Call, x: Sym) -> Sym:
    return x.unary(ew.HardSwish())


@op("Shrink", since=9)
def shrink(call: Call, x: Sym) -> Sym:
    bias, lambd = call.real("bias", 0.0), call.real("lambd", 0.5)
    if x.dtype.is_float:
        return x.unary(ew.Shrink(bias=bias, lambd=lambd))
    wide = x.cast(f64)
    return wide.unary(ew.Shrink(bias=bias, lambd=lambd)).cast(x.dtype)
