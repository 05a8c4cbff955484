"""How far two computations of the same thing may lie apart: one table, by dtype and class of op.

A test that needs more than its row says so where it does, with the reason:

    close(got, want, "reduction", reason="70,000 terms of mixed sign", factor=4)

An error is measured against the largest entry of the expected tensor as well as against the entry
itself: |got - want| <= rel * |want| + floor * max|want|. Entries that cancel to almost nothing carry
the rounding of the large ones they came from, so a purely relative test would be meaningless there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Tolerance:
    """The relative part, the part of the tensor's largest entry, and why no smaller one holds."""

    rel: float
    floor: float
    reason: str


# Unit roundoff: f64 1.1e-16, f32 6.0e-8, bf16 3.9e-3, f16 4.9e-4.
TABLE: dict[tuple[str, str], Tolerance] = {
    # Moves and integers change no bits.
    ("f64", "exact"): Tolerance(0.0, 0.0, "no rounding"),
    ("f32", "exact"): Tolerance(0.0, 0.0, "no rounding"),
    ("bf16", "exact"): Tolerance(0.0, 0.0, "no rounding"),
    ("f16", "exact"): Tolerance(0.0, 0.0, "no rounding"),
    # + - * / sqrt and what is composed of a few of them.
    ("f64", "arithmetic"): Tolerance(1e-15, 0.0, "a few correctly rounded operations, maybe fused"),
    ("f32", "arithmetic"): Tolerance(5e-7, 0.0, "a few correctly rounded operations, maybe fused"),
    ("bf16", "arithmetic"): Tolerance(8e-3, 0.0, "one rounding to 8 bits"),
    ("f16", "arithmetic"): Tolerance(1e-3, 0.0, "one rounding to 11 bits"),
    # exp, log, tanh, erf, ...: polynomials with stated bounds against libm's.
    ("f64", "transcendental"): Tolerance(2e-14, 1e-16, "a few ulp each side, and composition"),
    ("f32", "transcendental"): Tolerance(2e-6, 1e-7, "a few ulp each side, and composition"),
    ("bf16", "transcendental"): Tolerance(8e-3, 1e-3, "f32 inside, one rounding to 8 bits"),
    ("f16", "transcendental"): Tolerance(1e-3, 1e-4, "f32 inside, one rounding to 11 bits"),
    # Sums of up to ~1e5 terms in another order.
    ("f64", "reduction"): Tolerance(1e-12, 1e-13, "order of summation"),
    ("f32", "reduction"): Tolerance(1e-5, 1e-6, "order of summation"),
    ("bf16", "reduction"): Tolerance(8e-3, 8e-3, "f32 sums, one rounding to 8 bits"),
    ("f16", "reduction"): Tolerance(1e-3, 1e-3, "f32 sums, one rounding to 11 bits"),
    # Matmul and convolution with K up to ~1e4: order of summation and fused multiply-add.
    ("f64", "contraction"): Tolerance(1e-12, 1e-13, "order of summation, fma"),
    ("f32", "contraction"): Tolerance(1e-5, 2e-6, "order of summation, fma"),
    ("bf16", "contraction"): Tolerance(8e-3, 8e-3, "f32 sums, one rounding to 8 bits"),
    ("f16", "contraction"): Tolerance(1e-3, 1e-3, "f32 sums, one rounding to 11 bits"),
    # A whole forward and backward pass.
    ("f64", "network"): Tolerance(1e-9, 1e-10, "rounding carried through all layers"),
    ("f32", "network"): Tolerance(1e-4, 1e-5, "rounding carried through all layers"),
    # Losses of training in mixed precision, against training in f64: PyTorch's own autocast lies up to 1.2e-2 away.
    ("bf16", "network"): Tolerance(3e-2, 0.0, "activations of 8 bits through all layers and steps"),
}

# A gradient checked against finite differences in f64. Below the floor a tensor's gradient counts
# as zero: it is what differences of a loss near 1 leave of rounding when the true gradient is 0.
GRADCHECK_ERROR = 1e-6
GRADCHECK_ZERO_FLOOR = 1e-9

_NAMES = {"float64": "f64", "float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_KINDS = {kind for _, kind in TABLE}


def tolerance(dtype: object, kind: str) -> Tolerance:
    """Return the row for a numpy dtype (or our own name of it) and a class of op."""
    assert kind in _KINDS, f"no class of op {kind!r}; one of {sorted(_KINDS)}"
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    # Integers and booleans, which are not in the table, have one right answer.
    return TABLE.get((_NAMES.get(name, name), kind), TABLE[("f32", "exact")])


def close(
    got: ArrayLike, want: ArrayLike, kind: str, *, factor: float = 1.0, reason: str = ""
) -> None:
    """Fail unless both have the same shape and dtype and agree within the table's row.

    Args:
        got: What is tested; its dtype chooses the row.
        want: What it should be.
        kind: Class of op: exact, arithmetic, transcendental, reduction, contraction, network.
        factor: Widens the row; needs a reason.
        reason: Why the row is too narrow here.
    """
    assert factor == 1.0 or reason, "a wider tolerance needs its reason"
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    assert got.dtype == want.dtype, f"dtype {got.dtype}, expected {want.dtype}"
    row = tolerance(got.dtype, kind)
    if row.rel == 0.0 and row.floor == 0.0:
        np.testing.assert_array_equal(got, want)
        return
    # In f64, so that the comparison adds no rounding of its own to bf16 and f16.
    exact = want.astype(np.float64)
    finite = np.abs(exact[np.isfinite(exact)])
    largest = float(finite.max()) if finite.size else 0.0
    np.testing.assert_allclose(
        got.astype(np.float64),
        exact,
        rtol=factor * row.rel,
        atol=factor * row.floor * largest,
        err_msg=f"{kind}: {row.reason}",
    )
