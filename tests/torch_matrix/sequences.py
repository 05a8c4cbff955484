"""Recurrences, attention and transformers of torch.nn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from tests.torch_matrix.case import FOLDED, PLAIN, Case, Feed, f

KINDS = ("RNN", "LSTM", "GRU")
SETTINGS: dict[str, dict[str, object]] = {
    "": {},
    "(batch_first)": {"batch_first": True},
    "(bidirectional)": {"bidirectional": True},
    "(2 layers)": {"num_layers": 2},
    "(2 layers, bidirectional, batch_first)": {
        "num_layers": 2,
        "bidirectional": True,
        "batch_first": True,
    },
    "(bias=False)": {"bias": False},
}


class Given(nn.Module):
    """A recurrence whose initial state is fed."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor | None = None) -> object:
        return self.inner(x, h if c is None else (h, c))


class Called(nn.Module):
    """A module called with one or two tensors; the older exporter takes defaults such as `is_causal=False` for tensors."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.inner(x) if y is None else self.inner(x, y)


class Attended(nn.Module):
    """Attention of a sequence to itself, with the options that shape the graph."""

    def __init__(
        self, causal: bool = False, padding: bool = False, weights: bool = True, **options: object
    ) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.causal, self.padding, self.weights = causal, padding, weights

    def forward(self, x: torch.Tensor, hidden: torch.Tensor | None = None) -> object:
        mask = (
            nn.Transformer.generate_square_subsequent_mask(5, dtype=x.dtype)
            if self.causal
            else None
        )
        y, w = self.inner(
            x, x, x, key_padding_mask=hidden, attn_mask=mask, need_weights=self.weights
        )
        return (y, w) if self.weights else y


class Across(nn.Module):
    """Attention to another sequence."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.inner(x, y, y, need_weights=False)[0]


def _folds(kind: str) -> tuple[str, ...]:
    """Return the variants of a plain recurrence.

    Of an RNN, which it writes out step by step, the newer exporter folds the first step's share of a bias and leaves the rest:
    the bias keeps its name and loses a part of its gradient.
    """
    return tuple(v for v in FOLDED if kind != "RNN" or v != "dynamo18-folded")


def recurrences() -> Iterator[Case]:
    for kind in KINDS:
        for suffix, settings in SETTINGS.items():
            shape = ("N", 5, 4) if settings.get("batch_first") else (5, "N", 4)
            yield Case(
                f"{kind}{suffix}",
                lambda k=kind, s=settings: getattr(nn, k)(4, 3, **s),
                (f(*shape),),
                variants=_folds(kind) if not suffix else PLAIN,
            )
        states = 2 if kind == "LSTM" else 1
        yield Case(
            f"{kind} with its initial state",
            lambda k=kind: Given(getattr(nn, k)(4, 3)),
            (f(5, "N", 4), *[f(1, "N", 3)] * states),
        )
        yield Case(
            f"{kind}Cell",
            lambda k=kind: Given(getattr(nn, f"{k}Cell")(4, 3)),
            (f("N", 4), *[f("N", 3)] * states),
        )
    yield Case("RNN(relu)", lambda: nn.RNN(4, 3, nonlinearity="relu"), (f(5, "N", 4),))
    yield Case("LSTM(proj_size)", lambda: nn.LSTM(4, 3, proj_size=2), (f(5, "N", 4),))


def attentions() -> Iterator[Case]:
    x = f("N", 5, 8)
    yield Case("MultiheadAttention", Attended, (x,), variants=FOLDED)
    yield Case("MultiheadAttention(need_weights=False)", lambda: Attended(weights=False), (x,))
    yield Case("MultiheadAttention(causal)", lambda: Attended(causal=True, weights=False), (x,))
    yield Case("MultiheadAttention(key_padding_mask)", Attended, (x, Feed(("N", 5), "bool")))
    yield Case(
        "MultiheadAttention(bias_kv, zero_attn)",
        lambda: Attended(weights=False, add_bias_kv=True, add_zero_attn=True),
        (x,),
    )
    yield Case("MultiheadAttention(kdim, vdim)", lambda: Across(kdim=6, vdim=6), (x, f("N", 4, 6)))


def transformers() -> Iterator[Case]:
    x, memory = f("N", 5, 8), f("N", 4, 8)
    sizes = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "dropout": 0.0, "batch_first": True}

    def encoder(**more: object) -> nn.Module:
        return Called(nn.TransformerEncoderLayer(**{**sizes, **more}))

    def decoder(**more: object) -> nn.Module:
        return Called(nn.TransformerDecoderLayer(**{**sizes, **more}))

    yield Case("TransformerEncoderLayer", encoder, (x,), variants=FOLDED)
    yield Case(
        "TransformerEncoderLayer(norm_first, gelu)",
        lambda: encoder(norm_first=True, activation="gelu"),
        (x,),
    )
    yield Case(
        "TransformerEncoderLayer(sequence first)",
        lambda: encoder(batch_first=False),
        (f(5, "N", 8),),
    )
    yield Case("TransformerDecoderLayer", decoder, (x, memory))
    yield Case("TransformerDecoderLayer(norm_first)", lambda: decoder(norm_first=True), (x, memory))
    yield Case(
        "TransformerEncoder",
        lambda: Called(nn.TransformerEncoder(encoder().inner, 2, enable_nested_tensor=False)),
        (x,),
    )
    yield Case(
        "TransformerDecoder", lambda: Called(nn.TransformerDecoder(decoder().inner, 2)), (x, memory)
    )
    yield Case(
        "Transformer",
        lambda: Called(nn.Transformer(num_encoder_layers=1, num_decoder_layers=1, **sizes)),
        (x, memory),
    )


def cases() -> Iterator[Case]:
    """Yield all of them."""
    for family in (recurrences, attentions, transformers):
        yield from family()
