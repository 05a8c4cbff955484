"""Activations, named and with the defaults as in `torch.nn.functional`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.init import constant
from tapeout.frontend.nn.base import along, expect, expect_shape, known, parameter
from tapeout.ops import elementwise as ew
from tapeout.ops.composite import softmax as composite_softmax

if TYPE_CHECKING:
    from tapeout.frontend.init import Initializer
    from tapeout.ops.sym import Sym

# ONNX rounds them to f32.
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_GAMMA = 1.0507009873554804934193349852946


def relu(x: Sym) -> Sym:
    """Return `max(x, 0)`; the gradient at 0 is 0."""
    return x.relu()


def relu6(x: Sym) -> Sym:
    """Return `x` kept in 0..6."""
    return x.unary(ew.Relu6())


def leaky_relu(x: Sym, slope: float = 0.01) -> Sym:
    """Return `x` above 0, `slope * x` elsewhere."""
    return x.unary(ew.LeakyRelu(alpha=float(slope)))


def prelu(x: Sym, *, name: str, channels: int = 1, init: Initializer | None = None) -> Sym:
    """Return `x` above 0 and a learned multiple of it elsewhere.

    Args:
        x: [N, C, *].
        name: Name of the layer; its parameter is `name.weight` [channels], at first 0.25.
        channels: 1, or C for a slope per channel.
        init: Other initial values.
    """
    weight = parameter(x, f"{name}.weight", (channels,), init or constant(0.25))
    if channels == 1:
        return x.emit(ew.Prelu(), x, weight.reshape([]).broadcast_to(x.shape))
    have = known(x, 1, name)
    expect_shape(have == channels, f"prelu {name!r}: {channels} slopes for {have} channels")
    return x.emit(ew.Prelu(), x, along(x, weight, 1))


def elu(x: Sym, alpha: float = 1.0) -> Sym:
    """Return `x` above 0, `alpha * (exp(x) - 1)` elsewhere."""
    return x.unary(ew.Elu(alpha=float(alpha)))


def selu(x: Sym) -> Sym:
    """Return the scaled exponential unit, whose two numbers keep means and variances."""
    return x.unary(ew.Selu(alpha=_SELU_ALPHA, gamma=_SELU_GAMMA))


def celu(x: Sym, alpha: float = 1.0) -> Sym:
    """Return `x` above 0, `alpha * (exp(x / alpha) - 1)` elsewhere."""
    return x.unary(ew.Celu(alpha=float(alpha)))


def gelu(x: Sym, approximate: str = "none") -> Sym:
    """Return `x` times the normal distribution function of `x`; `approximate="tanh"` for the approximation."""
    return x.unary(ew.Gelu(approximate=approximate))


def silu(x: Sym) -> Sym:
    """Return `x * sigmoid(x)`."""
    return x.unary(ew.Silu())


def mish(x: Sym) -> Sym:
    """Return `x * tanh(softplus(x))`."""
    return x.unary(ew.Mish())


def softplus(x: Sym) -> Sym:
    """Return `log(1 + exp(x))`."""
    return x.unary(ew.Softplus())


def softsign(x: Sym) -> Sym:
    """Return `x / (1 + |x|)`."""
    return x.unary(ew.Softsign())


def sigmoid(x: Sym) -> Sym:
    """Return `1 / (1 + exp(-x))`."""
    return x.sigmoid()


def log_sigmoid(x: Sym) -> Sym:
    """Return `log(sigmoid(x))`."""
    return x.unary(ew.LogSigmoid())


def hard_sigmoid(x: Sym) -> Sym:
    """Return `x / 6 + 1/2` kept in 0..1."""
    return x.unary(ew.HardSigmoid(alpha=1 / 6))


def hard_swish(x: Sym) -> Sym:
    """Return `x * hard_sigmoid(x)`."""
    return x.unary(ew.HardSwish())


def hard_tanh(x: Sym, low: float = -1.0, high: float = 1.0) -> Sym:
    """Return `x` kept in low..high; the gradient at the bounds is 0."""
    expect(low < high, f"hard_tanh: the bounds are {low} and {high}")
    inside = (x > low) & (x < high)
    return inside.where(x, x.clip(low, high))


def hard_shrink(x: Sym, threshold: float = 0.5) -> Sym:
    """Return `x` where `|x|` is above the threshold, 0 elsewhere."""
    return x.unary(ew.Shrink(lambd=float(threshold)))


def soft_shrink(x: Sym, threshold: float = 0.5) -> Sym:
    """Return `x` moved towards 0 by the threshold, 0 where it is nearer."""
    return x.unary(ew.Shrink(lambd=float(threshold), bias=float(threshold)))


def tanh(x: Sym) -> Sym:
    """Return the hyperbolic tangent."""
    return x.tanh()


def tanh_shrink(x: Sym) -> Sym:
    """Return `x - tanh(x)`."""
    return x - x.tanh()


def glu(x: Sym, axis: int = -1) -> Sym:
    """Return the first half along an axis times the sigmoid of the second."""
    axis %= x.rank
    size = known(x, axis, "glu")
    expect_shape(size % 2 == 0, f"glu: axis {axis} of {x.type.text} does not part in two halves")
    first, second = (
        (slice(None),) * axis + (slice(*ends),) for ends in ((0, size // 2), (size // 2, size))
    )
    return x[first] * x[second].sigmoid()


def softmax(x: Sym, axis: int = -1) -> Sym:
    """Return `exp(x)` divided by its sum along `axis`."""
    return composite_softmax.softmax(x, axis)


def log_softmax(x: Sym, axis: int = -1) -> Sym:
    """Return the logarithm of softmax along `axis`, computed without overflow."""
    return composite_softmax.log_softmax(x, axis)
