"""Rows of attention and its gradient; the oracle takes one query after the other."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir import dtype as dt
from tapeout.ops.composite.attention import Attention, AttentionGradient
from tests.ops.cases import Case, Operand

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.op import Array

FLOATS = (dt.f64, dt.f32, dt.bf16)
Q, K, V = (1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 1)
GROUPED = ((1, 4, 2, 2), (1, 2, 3, 2), (1, 2, 3, 1))


def one_by_one(op: Attention) -> Callable[..., tuple[Array, Array]]:
    """Return the definition as a loop over heads and queries."""

    def run(*arrays: Array) -> tuple[Array, Array]:
        q, k, v, *mask = (a if a.dtype == bool else a.astype(np.float64) for a in arrays)
        y = np.zeros((*q.shape[:-1], v.shape[-1]))
        share = np.zeros((*q.shape[:-1], k.shape[-2]))
        lse = np.zeros(q.shape[:-1])
        for at in np.ndindex(*lse.shape):
            *lead, head, row = at
            group = (*lead, head // (q.shape[-3] // k.shape[-3]))
            scores = k[group] @ q[at] * op.scale
            if op.softcap:
                scores = op.softcap * np.tanh(scores / op.softcap)
            seen = np.ones(len(scores), bool)
            if mask:
                own = np.broadcast_to(mask[0], share.shape)[at]
                seen &= own if own.dtype == bool else True
                scores = scores if own.dtype == bool else scores + own
            for key in range(len(scores)):
                ahead = key - (row + op.offset)
                seen[key] &= op.right < 0 or ahead <= op.right
                seen[key] &= op.left < 0 or -ahead <= op.left
            seen &= scores > -math.inf
            if not seen.any():
                continue
            e = np.where(seen, np.exp(scores), 0)
            share[at], lse[at] = e / e.sum(), math.log(e.sum())
            y[at] = share[at] @ v[group]
        lse = lse.astype(np.float32 if arrays[0].dtype.itemsize == 2 else arrays[0].dtype)
        kept = share.astype(arrays[0].dtype) if op.keeps == "probabilities" else lse
        return y.astype(arrays[0].dtype), kept

    return run


def rows(
    shapes: tuple[tuple[int, ...], ...] = (Q, K, V), mask: Operand | None = None, **attributes: Any
) -> list[Case]:
    """Return a row per float type and way to keep what the gradient needs, and rows of the gradient."""
    found = []
    for keeps in ("logsum", "probabilities"):
        if keeps == "probabilities" and attributes.get("softcap"):
            continue
        op = Attention(**{"scale": 0.7, **attributes}, keeps=keeps)
        for d in FLOATS:
            own = None if mask is None or mask.dtype == dt.bool_ else d
            extra = (
                () if mask is None else (Operand(own or dt.bool_, mask.shape, values=mask.values),)
            )
            operands = (*(Operand(d, s) for s in shapes), *extra)
            drawn = mask is None or mask.values is None
            found.append(
                Case(op, operands, "reduction", one_by_one(op), at=False, order=2 if drawn else 1)
            )
        found.append(gradient(op, shapes, mask))
    return found


def gradient(op: Attention, shapes: tuple[tuple[int, ...], ...], mask: Operand | None) -> Case:
    """Return a row of the gradient in f64, for any result and whatever was kept."""
    types = tuple(Operand(dt.f64, s) for s in shapes) + (() if mask is None else (mask,))
    y, kept = op.infer(*(t.type for t in types))
    made = AttentionGradient(**{f.name: getattr(op, f.name) for f in fields(op)})
    operands = (*types, *(Operand(dt.f64, t.shape) for t in (y, y, kept)))
    return Case(made, operands, "reduction", made.reference, at=False, order=1)


HALF = tuple(float(i * 5 % 7 > 2) for i in range(12))
NONE = tuple(0.0 if i < 4 else float(i % 4 < 2) for i in range(12))
NEVER = tuple(-math.inf if i < 4 or i % 5 == 0 else 0.25 * i for i in range(12))

CASES = [
    *rows(),
    *rows(right=0),
    *rows(right=0, offset=3),
    *rows(right=0, offset=-2),
    *rows(left=1, right=2, offset=1),
    *rows(softcap=1.5),
    *rows(GROUPED),
    *rows(GROUPED, right=0, mask=Operand(dt.f64, (1, 4, 1, 3))),
    *rows(((2, 3, 2), (1, 2, 2), (1, 2, 3))),
    *rows(mask=Operand(dt.bool_, (1, 1, 3, 4), values=HALF)),
    *rows(mask=Operand(dt.bool_, (1, 1, 3, 4), values=NONE), right=0),
    *rows(mask=Operand(dt.f64, (1, 2, 1, 4))),
    *rows(mask=Operand(dt.f64, (1, 1, 3, 4)), softcap=2.0),
    *rows(mask=Operand(dt.f64, (1, 1, 3, 4), values=NEVER)),
]
