"""Recurrent layers, with the parameters of PyTorch's: names, shapes, order of gates and default weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.frontend.init import fan_in_uniform
from tapeout.frontend.nn.base import expect, expect_shape, known, parameter
from tapeout.frontend.nn.dense import dropout as dropped
from tapeout.ops.composite import recurrent
from tapeout.ops.composite.recurrent import TORCH_GRU, TORCH_LSTM, Layer
from tapeout.ops.sym import Sym

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from tapeout.ops.composite.recurrent import Activation

    Run = Callable[[Layer, list[Sym | None]], tuple[Sym, ...]]


def lstm(
    x: Sym,
    features: int,
    *,
    name: str,
    layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    bias: bool = True,
    dropout: float = 0.0,
    state: Sym | None = None,
    cell: Sym | None = None,
    lengths: Sym | None = None,
) -> tuple[Sym, Sym, Sym]:
    """Run an LSTM over time, as `torch.nn.LSTM`.

    Args:
        x: [T, N, in], or [N, T, in] if `batch_first`.
        features: Size H of the state.
        name: Name of the layer. Its parameters are, for layer i of L, `name.weight_ih_l{i}` [4*H, in], `name.weight_hh_l{i}` [4*H, H] and
            the biases `name.bias_ih_l{i}`, `name.bias_hh_l{i}` [4*H]; those of the way back end in `_reverse`.
        layers: How many layers stand upon each other.
        bidirectional: Whether each layer also goes back in time; the states of both ways are put side by side.
        batch_first: Whether the samples are the first dimension of x and y.
        bias: Whether there are biases.
        dropout: Share of the states between layers that is dropped in training.
        state: The first states [L*D, N, H] for D directions; zeros if missing.
        cell: The first cell states, alike.
        lengths: How many times of each sample are valid, integers [N]; y is zero behind them. All if missing.

    Returns:
        y [T, N, D*H] (or [N, T, D*H]), the last states and the last cell states [L*D, N, H].
    """
    stack = _Stack(name, features, 4, layers, bidirectional, batch_first, bias, dropout, lengths)

    def run(layer: Layer, first: list[Sym | None]) -> tuple[Sym, ...]:
        return recurrent.lstm(layer, first[1], order=TORCH_LSTM)

    y, h, c = stack.apply(x, (state, cell), run)
    return y, h, c


def gru(
    x: Sym,
    features: int,
    *,
    name: str,
    layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    bias: bool = True,
    dropout: float = 0.0,
    state: Sym | None = None,
    lengths: Sym | None = None,
) -> tuple[Sym, Sym]:
    """Run a GRU over time, as `torch.nn.GRU`.

    Args:
        x: As for `lstm`, and so are the others; three gates instead of four.
        features: Size H of the state.
        name: Name of the layer.
        layers: How many layers stand upon each other.
        bidirectional: Whether each layer also goes back in time.
        batch_first: Whether the samples are the first dimension of x and y.
        bias: Whether there are biases.
        dropout: Share of the states between layers that is dropped in training.
        state: The first states [L*D, N, H]; zeros if missing.
        lengths: How many times of each sample are valid, integers [N]; all if missing.

    Returns:
        y [T, N, D*H] (or [N, T, D*H]) and the last states [L*D, N, H].
    """
    stack = _Stack(name, features, 3, layers, bidirectional, batch_first, bias, dropout, lengths)
    y, h = stack.apply(x, (state,), lambda layer, first: recurrent.gru(layer, order=TORCH_GRU))
    return y, h


def rnn(
    x: Sym,
    features: int,
    *,
    name: str,
    activation: Literal["tanh", "relu"] = "tanh",
    layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    bias: bool = True,
    dropout: float = 0.0,
    state: Sym | None = None,
    lengths: Sym | None = None,
) -> tuple[Sym, Sym]:
    """Run `h = activation(x W + h R + b)` over time, as `torch.nn.RNN`.

    Args:
        x: As for `lstm`, and so are the others; one gate.
        features: Size H of the state.
        name: Name of the layer.
        activation: `tanh` or `relu`.
        layers: How many layers stand upon each other.
        bidirectional: Whether each layer also goes back in time.
        batch_first: Whether the samples are the first dimension of x and y.
        bias: Whether there are biases.
        dropout: Share of the states between layers that is dropped in training.
        state: The first states [L*D, N, H]; zeros if missing.
        lengths: How many times of each sample are valid, integers [N]; all if missing.

    Returns:
        y [T, N, D*H] (or [N, T, D*H]) and the last states [L*D, N, H].
    """
    expect(activation in ("tanh", "relu"), f"rnn {name!r}: activation is {activation!r}")
    squash: Activation = Sym.tanh if activation == "tanh" else Sym.relu
    stack = _Stack(name, features, 1, layers, bidirectional, batch_first, bias, dropout, lengths)
    y, h = stack.apply(x, (state,), lambda layer, first: recurrent.rnn(layer, activation=squash))
    return y, h


@dataclass(frozen=True)
class _Stack:
    """Layers upon each other, and what they have in common; see `lstm`."""

    name: str
    features: int
    gates: int
    layers: int
    bidirectional: bool
    batch_first: bool
    bias: bool
    dropout: float
    lengths: Sym | None

    def apply(self, x: Sym, states: Sequence[Sym | None], run: Run) -> tuple[Sym, ...]:
        """Return y, then the last ones of each kind of state."""
        self._check(x, states)
        y = x.transpose([1, 0, 2]) if self.batch_first else x
        last: list[list[Sym]] = [[] for _ in states]
        for i in range(self.layers):
            if i and self.dropout:
                y = dropped(y, self.dropout, name=f"{self.name}.dropout_l{i}")
            parts = []
            for reverse in (False, True) if self.bidirectional else (False,):
                first = [None if s is None else s[len(last[0])] for s in states]
                part, *ends = run(self._layer(y, i, reverse, first[0]), first)
                parts.append(part)
                for kind, end in zip(last, ends, strict=True):
                    kind.append(end.expand_dims([0]))
            y = parts[0].concat(parts[1:], 2) if len(parts) > 1 else parts[0]
        ends_of_all = (k[0].concat(k[1:], 0) if len(k) > 1 else k[0] for k in last)
        return (y.transpose([1, 0, 2]) if self.batch_first else y, *ends_of_all)

    def _check(self, x: Sym, states: Sequence[Sym | None]) -> None:
        name, features = self.name, self.features
        expect_shape(
            x.rank == 3, f"{name!r}: [T, N, in] or [N, T, in] is expected, got {x.type.text}"
        )
        counts = f"features is {features}, layers is {self.layers}"
        expect(features > 0 and self.layers > 0, f"{name!r}: {counts}; both must be at least 1")
        expect(0.0 <= self.dropout <= 1.0, f"{name!r}: dropout is {self.dropout}, expected 0..1")
        count = self.layers * (2 if self.bidirectional else 1)
        wanted = (count, x.shape[0 if self.batch_first else 1], features)
        for s in states:
            if s is not None:
                text = f"{name!r}: a first state is {s.type.text}, [{count}, N, {features}] is expected"
                expect_shape(s.shape == wanted, text)

    def _layer(self, x: Sym, number: int, reverse: bool, state: Sym | None) -> Layer:
        """Declare the parameters of one layer in one direction."""
        end = f"_l{number}{'_reverse' if reverse else ''}"
        rows, inside = self.gates * self.features, known(x, 2, self.name)
        drawn = fan_in_uniform(self.features)

        def declare(what: str, *shape: int) -> Sym:
            return parameter(x, f"{self.name}.{what}{end}", shape, drawn)

        weight = declare("weight_ih", rows, inside)
        recurrent_weight = declare("weight_hh", rows, self.features)
        first = declare("bias_ih", rows) if self.bias else None
        second = declare("bias_hh", rows) if self.bias else None
        return Layer(
            x, weight, recurrent_weight, first, second, state, self.lengths, reverse=reverse
        )
