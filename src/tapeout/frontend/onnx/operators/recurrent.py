"""LSTM, GRU and RNN: one or two directions, each a loop over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import op
from tapeout.ops import elementwise as ew
from tapeout.ops.composite import recurrent
from tapeout.ops.composite.recurrent import Layer
from tapeout.ops.sym import Sym

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.composite.recurrent import Activation

    Run = Callable[[Layer, int, Sequence[Activation]], tuple[Sym, ...]]

_PLAIN: dict[str, Activation] = {
    "relu": Sym.relu,
    "tanh": Sym.tanh,
    "sigmoid": Sym.sigmoid,
    "softsign": lambda x: x.unary(ew.Softsign()),
    "softplus": lambda x: x.unary(ew.Softplus()),
}
# With alpha and beta; the defaults are those of the operators of these names.
_SCALED: dict[str, tuple[Callable[..., Activation], tuple[float, ...]]] = {
    "affine": (lambda a, b: lambda x: x * a + b, (1.0, 0.0)),
    "leakyrelu": (lambda a: lambda x: x.unary(ew.LeakyRelu(alpha=a)), (0.01,)),
    "thresholdedrelu": (lambda a: lambda x: x.unary(ew.ThresholdedRelu(alpha=a)), (1.0,)),
    "scaledtanh": (lambda a, b: lambda x: (x * b).tanh() * a, (1.0, 1.0)),
    "hardsigmoid": (lambda a, b: lambda x: x.unary(ew.HardSigmoid(alpha=a, beta=b)), (0.2, 0.5)),
    "elu": (lambda a: lambda x: x.unary(ew.Elu(alpha=a)), (1.0,)),
}


@op("LSTM", since=7)
def lstm(
    call: Call,
    x: Sym,
    w: Sym,
    r: Sym,
    b: Sym | None = None,
    sequence_lens: Sym | None = None,
    initial_h: Sym | None = None,
    initial_c: Sym | None = None,
    p: Sym | None = None,
) -> tuple[Sym | None, ...]:
    couple = call.flag("input_forget")
    cells = _by_direction(call, initial_c)

    def run(layer: Layer, direction: int, activations: Sequence[Activation]) -> tuple[Sym, ...]:
        n = layer.hidden
        looks = [] if p is None else [p[direction, i * n : (i + 1) * n] for i in range(3)]
        cell = None if cells is None else cells[direction]
        return recurrent.lstm(layer, cell, peephole=looks, activations=activations, couple=couple)

    operands = (x, w, r, b, sequence_lens, initial_h)
    return _layers(call, operands, 4, ("sigmoid", "tanh", "tanh"), run)


@op("GRU", since=7)
def gru(
    call: Call,
    x: Sym,
    w: Sym,
    r: Sym,
    b: Sym | None = None,
    sequence_lens: Sym | None = None,
    initial_h: Sym | None = None,
) -> tuple[Sym | None, ...]:
    after = call.flag("linear_before_reset")

    def run(layer: Layer, direction: int, activations: Sequence[Activation]) -> tuple[Sym, ...]:
        return recurrent.gru(layer, activations=activations, reset_after=after)

    operands = (x, w, r, b, sequence_lens, initial_h)
    return _layers(call, operands, 3, ("sigmoid", "tanh"), run)


@op("RNN", since=7)
def rnn(
    call: Call,
    x: Sym,
    w: Sym,
    r: Sym,
    b: Sym | None = None,
    sequence_lens: Sym | None = None,
    initial_h: Sym | None = None,
) -> tuple[Sym | None, ...]:
    def run(layer: Layer, direction: int, activations: Sequence[Activation]) -> tuple[Sym, ...]:
        return recurrent.rnn(layer, activation=activations[0])

    return _layers(call, (x, w, r, b, sequence_lens, initial_h), 1, ("tanh",), run)


def _layers(
    call: Call,
    operands: tuple[Sym | None, ...],
    gates: int,
    defaults: Sequence[str],
    run: Run,
) -> tuple[Sym | None, ...]:
    """Return the states of all times [T, D, N, H], then the last ones [D, N, H], of all D directions."""
    x, w, r, b, lengths, state = operands
    assert x is not None
    assert w is not None
    assert r is not None
    names = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    turns = names[call.choice("direction", tuple(names), "forward")]
    call.require(x.rank == w.rank == r.rank == 3, f"x is {x.type}, W {w.type}, R {r.type}")
    batch_first = _batch_first(call)
    if batch_first:
        x = x.transpose([1, 0, 2])
    hidden = call.integer("hidden_size", int(r.shape[2]))
    fits = w.shape == (len(turns), gates * hidden, x.shape[2])
    fits = fits and r.shape == (len(turns), gates * hidden, hidden)
    call.require(fits, f"W {w.type} and R {r.type} do not fit hidden_size {hidden} and x {x.type}")
    if b is not None:
        wanted = (len(turns), 2 * gates * hidden)
        call.require(b.shape == wanted, f"B is {b.type}, {list(wanted)} is expected")
    clip = call.real("clip", 0.0)
    states = _by_direction(call, state)
    activations = _activations(call, defaults, len(turns))
    lengths = _needed(call, lengths, x)
    made = []
    for d, reverse in enumerate(turns):
        bias, second = (
            (None, None) if b is None else (b[d, : gates * hidden], b[d, gates * hidden :])
        )
        first = None if states is None else states[d]
        layer = Layer(x, w[d], r[d], bias, second, first, lengths, clip or None, reverse)
        made.append(run(layer, d, activations[d]))
    y, *last = (list(parts) for parts in zip(*made, strict=True))
    stacked = [_stack(y, 1), *(_stack(part, 0) for part in last)]
    if not batch_first:
        return tuple(stacked)
    return (stacked[0].transpose([2, 0, 1, 3]), *(s.transpose([1, 0, 2]) for s in stacked[1:]))


def _stack(parts: list[Sym], axis: int) -> Sym:
    first, *others = (p.expand_dims([axis]) for p in parts)
    return first.concat(others, axis) if others else first


def _batch_first(call: Call) -> bool:
    return call.opset >= 14 and call.flag("layout")


def _by_direction(call: Call, state: Sym | None) -> list[Sym] | None:
    """Return the first state of each direction [N, H]."""
    if state is None:
        return None
    call.require(state.rank == 3, f"a first state is {state.type}, three dimensions are expected")
    moved = state.transpose([1, 0, 2]) if _batch_first(call) else state
    return [moved[d] for d in range(int(moved.shape[0]))]


def _needed(call: Call, lengths: Sym | None, x: Sym) -> Sym | None:
    """Return the lengths of the sequences; None when all are known to be whole."""
    if lengths is None:
        return None
    whole = call.is_known(lengths) and bool((call.value(lengths, "lengths") >= x.shape[0]).all())
    return None if whole else lengths


def _activations(call: Call, defaults: Sequence[str], directions: int) -> list[list[Activation]]:
    """Return the activations of each direction; those with factors take them off the lists in turn."""
    names = call.texts("activations") or tuple(defaults) * directions
    count = len(defaults) * directions
    call.require(len(names) == count, f"{len(names)} activations are named, {count} are needed")
    alphas = list(call.reals("activation_alpha") or ())
    betas = list(call.reals("activation_beta") or ())
    made = [_activation(call, name, alphas, betas) for name in names]
    n = len(defaults)
    return [made[d * n : (d + 1) * n] for d in range(directions)]


def _activation(call: Call, name: str, alphas: list[float], betas: list[float]) -> Activation:
    key = name.lower()
    if key in _PLAIN:
        return _PLAIN[key]
    if key not in _SCALED:
        call.unsupported(f"activation {name!r} is not known")
    make, factors = _SCALED[key]
    given = [
        values.pop(0) if values else default
        for values, default in zip((alphas, betas), factors, strict=False)
    ]
    return make(*given)
