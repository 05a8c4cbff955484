"""Recurrent layers over `scan`: one direction of an LSTM, a GRU or a plain recurrence.

What does not depend on the state (the product of all inputs with the input weights, and the biases) is computed before the loop, as
one product for all times and gates; in the loop, one product of the state with the recurrent weights serves all gates. So the
gradients of both weights are single products after the loop backwards.

Values are laid out as ONNX has them: x [T, N, I], weights [G*H, I] and [G*H, H] with the G gates one below the other. `order`
names the gates from top to bottom; weights in PyTorch's order need no copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.ir.dtype import f32
from tapeout.ops.control import scan
from tapeout.ops.sym import Sym, iota
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType

Activation = Callable[[Sym], Sym]
Step = Callable[[list[Sym], Sym, Sym, list[Sym]], list[Sym]]
"""From the states, this time's product with the input, the product with the state, and more values, to the next states."""

ONNX_LSTM, TORCH_LSTM = "iofc", "ifco"
ONNX_GRU, TORCH_GRU = "zrh", "rzh"


@dataclass(frozen=True)
class Layer:
    """The operands that all kinds of recurrent layers have.

    Attributes:
        x: [T, N, I].
        weight: The input weights [G*H, I].
        recurrent: The recurrent weights [G*H, H].
        bias: Added to the product with the input [G*H]; None for none.
        recurrent_bias: Added to the product with the state [G*H]; None for none.
        state: The first state [N, H]; None for zeros.
        lengths: How many times of each sample are valid, integers [N]; None for all. Outside of them results are zero and states stay.
        clip: Bound of what goes into the activations of the gates; None for none.
        reverse: Whether time runs from the last to the first.
    """

    x: Sym
    weight: Sym
    recurrent: Sym
    bias: Sym | None = None
    recurrent_bias: Sym | None = None
    state: Sym | None = None
    lengths: Sym | None = None
    clip: float | None = None
    reverse: bool = False

    @property
    def hidden(self) -> int:
        """Size of the state."""
        return int(self.recurrent.shape[-1])

    @property
    def dtype(self) -> DType:
        """What is computed in: f32 for floats of 16 bits."""
        return f32 if self.x.dtype.bits == 16 else self.x.dtype

    def clipped(self, x: Sym) -> Sym:
        """Return what goes into an activation."""
        return x if self.clip is None else x.clip(-self.clip, self.clip)

    def check(self, name: str, gates: int, others: Sequence[Sym | None]) -> None:
        """Check that the shapes fit each other.

        Raises:
            ShapeError: They do not.
        """
        x, h = self.x, self.hidden
        if x.rank != 3 or not x.dtype.is_float:
            raise ShapeError(f"{name}: x is {x.type}, expected floats [T, N, I]")
        state = (x.shape[1], h)
        wanted: list[tuple[str, Sym | None, tuple[int, ...]]] = [
            ("input weight", self.weight, (gates * h, x.shape[2])),
            ("recurrent weight", self.recurrent, (gates * h, h)),
            ("bias", self.bias, (gates * h,)),
            ("recurrent bias", self.recurrent_bias, (gates * h,)),
            ("first state", self.state, state),
            *(("first state", s, state) for s in others),
        ]
        for what, v, shape in wanted:
            if v is not None and (v.shape != shape or v.dtype != x.dtype):
                sizes = ", ".join(str(int(n)) for n in shape)
                raise ShapeError(
                    f"{name}: the {what} is {v.type}, expected {x.dtype}[{sizes}] for x {x.type}"
                )
        lengths = self.lengths
        if lengths is not None and (lengths.shape != x.shape[1:2] or not lengths.dtype.is_integer):
            raise ShapeError(
                f"{name}: lengths are {lengths.type}, expected integers [N], x {x.type}"
            )


def lstm(
    layer: Layer,
    cell: Sym | None = None,
    *,
    peephole: Sequence[Sym] = (),
    activations: Sequence[Activation] = (Sym.sigmoid, Sym.tanh, Sym.tanh),
    couple: bool = False,
    order: str = ONNX_LSTM,
) -> tuple[Sym, Sym, Sym]:
    """Run an LSTM: gates i (input), o (output), f (forget), candidate c.

    Args:
        layer: Its operands, with four gates.
        cell: The first cell state [N, H]; None for zeros.
        peephole: Weights [H] by which the gates i, o, f see the cell state; empty for none.
        activations: Of the gates, of the candidate, of the cell state.
        couple: Whether the forget gate is `1 - i`.
        order: Of the gates in the weights.

    Returns:
        The states [T, N, H], the last state [N, H] and the last cell state [N, H].

    Raises:
        ShapeError: The shapes do not fit.
    """
    layer.check("lstm", 4, [cell])
    squash, candidate, out = activations
    dtype, hidden = layer.dtype, layer.hidden

    def step(states: list[Sym], pre: Sym, product: Sym, looks: list[Sym]) -> list[Sym]:
        _, c = states
        total = pre + product
        i, o, f, g = (_part(total, order.index(name), hidden) for name in "iofc")
        if looks:
            i, f = i + looks[0] * c, f + looks[2] * c
        i = squash(layer.clipped(i))
        f = 1 - i if couple else squash(layer.clipped(f))
        new = f * c + i * candidate(layer.clipped(g))
        if looks:
            o = o + looks[1] * new
        return [squash(layer.clipped(o)) * out(new), new]

    bias = _sum(layer.bias, layer.recurrent_bias)
    looks = [p.cast(dtype) for p in peephole]
    y, (h, c) = _over_time(layer, [layer.state, cell], step, bias, layer.recurrent, looks)
    return y, h, c


def gru(
    layer: Layer,
    *,
    activations: Sequence[Activation] = (Sym.sigmoid, Sym.tanh),
    reset_after: bool = True,
    order: str = ONNX_GRU,
) -> tuple[Sym, Sym]:
    """Run a GRU: gates z (update), r (reset), candidate h.

    Args:
        layer: Its operands, with three gates.
        activations: Of the gates, of the candidate.
        reset_after: Whether the reset gate scales the state's product with the weights (PyTorch's form), or the state itself.
        order: Of the gates in the weights; the candidate is the last.

    Returns:
        The states [T, N, H] and the last state [N, H].

    Raises:
        ShapeError: The shapes do not fit.
    """
    layer.check("gru", 3, [])
    squash, candidate = activations
    hidden = layer.hidden

    def step(states: list[Sym], pre: Sym, product: Sym, more: list[Sym]) -> list[Sym]:
        (h,) = states
        z, r = (
            squash(layer.clipped(_part(pre, i, hidden) + _part(product, i, hidden)))
            for i in (order.index("z"), order.index("r"))
        )
        if not reset_after:
            inner = _product(r * h, more[0])
        elif more:
            inner = r * (_part(product, 2, hidden) + more[0])
        else:
            inner = r * _part(product, 2, hidden)
        new = candidate(layer.clipped(_part(pre, 2, hidden) + inner))
        return [(1 - z) * new + z * h]

    weight, second, more = layer.recurrent, layer.recurrent_bias, list[Sym]()
    if not reset_after:
        weight, more = weight[: 2 * hidden], [weight[2 * hidden :].cast(layer.dtype)]
    elif second is not None:
        # What the reset gate scales cannot be added before the loop.
        more = [second[2 * hidden :].cast(layer.dtype)]
        second = second[: 2 * hidden].pad([0], [hidden])
    y, (h,) = _over_time(layer, [layer.state], step, _sum(layer.bias, second), weight, more)
    return y, h


def rnn(layer: Layer, *, activation: Activation = Sym.tanh) -> tuple[Sym, Sym]:
    """Run `h = activation(x W + h R + b)`.

    Returns:
        The states [T, N, H] and the last state [N, H].

    Raises:
        ShapeError: The shapes do not fit.
    """
    layer.check("rnn", 1, [])

    def step(states: list[Sym], pre: Sym, product: Sym, more: list[Sym]) -> list[Sym]:
        return [activation(layer.clipped(pre + product))]

    bias = _sum(layer.bias, layer.recurrent_bias)
    y, (h,) = _over_time(layer, [layer.state], step, bias, layer.recurrent, [])
    return y, h


def _over_time(
    layer: Layer,
    states: Sequence[Sym | None],
    step: Step,
    bias: Sym | None,
    recurrent: Sym,
    more: Sequence[Sym],
) -> tuple[Sym, list[Sym]]:
    """Return the first state of every time, and the last states."""
    dtype, time = layer.dtype, layer.x.shape[0]
    pre = _product(layer.x.cast(dtype), layer.weight.cast(dtype))
    if bias is not None:
        pre = pre + bias.cast(dtype)
    first = [_zeros(layer) if s is None else s.cast(dtype) for s in states]
    valid = _valid(layer)

    def body(
        carries: list[Sym], slices: list[Sym], consts: list[Sym]
    ) -> tuple[list[Sym], list[Sym]]:
        made = step(carries, slices[0], _product(carries[0], consts[0]), consts[1:])
        if len(slices) == 2:
            here = slices[1].expand_dims([1])
            made = [here.where(new, old) for new, old in zip(made, carries, strict=True)]
        return made, []

    stacked = [pre] if valid is None else [pre, valid]
    consts = [recurrent.cast(dtype), *more]
    histories, _ = scan(body, first, stacked, consts, length=time, reverse=layer.reverse)
    y = histories[0][:-1] if layer.reverse else histories[0][1:]
    if valid is not None:
        y = valid.expand_dims([2]).where(y, 0)
    last = [h[0] if layer.reverse else h[-1] for h in histories]
    return y.cast(layer.x.dtype), [v.cast(layer.x.dtype) for v in last]


def _valid(layer: Layer) -> Sym | None:
    """Return which times of which sample are valid, bool [T, N]; None for all."""
    if layer.lengths is None:
        return None
    shape = layer.x.shape[:2]
    return iota(layer.x.builder, shape, 0, layer.lengths.dtype) < layer.lengths


def _zeros(layer: Layer) -> Sym:
    x = layer.x
    zero = x.constant(0.0, layer.dtype)
    return zero.broadcast_to((x.shape[1], layer.hidden))


def _product(x: Sym, weight: Sym) -> Sym:
    """Return `x @ weight.T`."""
    return x.dot_general(weight, contract=((x.rank - 1,), (1,)))


def _part(x: Sym, gate: int, hidden: int) -> Sym:
    return x[:, gate * hidden : (gate + 1) * hidden]


def _sum(a: Sym | None, b: Sym | None) -> Sym | None:
    return b if a is None else a if b is None else a + b
