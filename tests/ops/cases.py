"""The table of cases: one row per operation and variant, read by every test of this folder.

A row says how to make the operands and, where there is an independent way, what the results are. The
properties (types, values, one element at a time, gradients of both orders) are tested for all rows alike.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir import dtype as dt
from tapeout.ir.type import TensorType

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array, Op


@dataclass(frozen=True)
class Operand:
    """How to draw an operand.

    Attributes:
        dtype: Element type.
        shape: Shape.
        low: Least number drawn.
        high: Greatest number drawn.
        avoid: Corners of the operation; numbers are drawn away from them.
        special: Numbers put first, for tests of values; gradients do not see them.
        values: The whole operand instead.
    """

    dtype: DType
    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    avoid: tuple[float, ...] = ()
    special: tuple[float, ...] = ()
    values: tuple[float, ...] | None = None

    @property
    def type(self) -> TensorType:
        """The type of the operand."""
        return TensorType(self.dtype, self.shape)

    def draw(self, rng: np.random.Generator, *, special: bool) -> Array:
        """Return the operand."""
        if self.values is not None:
            return np.array(self.values).astype(self.dtype.numpy).reshape(self.shape)
        size = math.prod(self.shape)
        if self.dtype == dt.bool_:
            return rng.integers(0, 2, self.shape).astype(bool)
        if self.dtype.is_integer:
            x = rng.integers(int(self.low), int(self.high) + 1, size).astype(self.dtype.numpy)
        else:
            x = rng.uniform(self.low, self.high, size)
            for corner in self.avoid:
                x = np.where(np.abs(x - corner) < 0.06, corner + 0.1 + (x - corner), x)
            x = x.astype(self.dtype.numpy)
        if special:
            n = min(size, len(self.special))
            x[:n] = np.array(self.special[:n]).astype(self.dtype.numpy)
        return x.reshape(self.shape)


@dataclass(frozen=True)
class Case:
    """One operation on drawn operands.

    Attributes:
        op: The operation.
        operands: How to draw its operands.
        kind: The row of the table of tolerances.
        expected: The results by another way; None where there is none.
        order: How many derivatives exist and are tested.
        zero: Whether the gradient is zero everywhere.
        at: Whether one element at a time is defined (not for composites and constants in memory).
        label: Tells rows of one operation apart.
    """

    op: Op
    operands: tuple[Operand, ...]
    kind: str = "exact"
    expected: Callable[..., Any] | None = None
    order: int = 2
    zero: bool = False
    at: bool = True
    label: str = ""

    @property
    def id(self) -> str:
        """The name of the row in reports."""
        types = ",".join(str(o.type) for o in self.operands)
        values = ["=".join(map(str, o.values)) for o in self.operands if o.values is not None]
        shown = "~".join(values) if sum(map(len, values)) < 40 else ""
        return "-".join(x for x in (repr(self.op), types, shown, self.label) if x)

    @property
    def types(self) -> tuple[TensorType, ...]:
        """The types of the operands."""
        return tuple(o.type for o in self.operands)

    def draw(self, *, special: bool = True) -> tuple[Array, ...]:
        """Return the operands, always the same."""
        rng = np.random.default_rng(zlib.crc32(self.id.encode()))
        return tuple(o.draw(rng, special=special) for o in self.operands)

    @property
    def differentiable(self) -> bool:
        """Whether gradients are tested: in f64, where differences are exact enough."""
        floats = [o.dtype for o in self.operands if o.dtype.is_float]
        return self.order > 0 and bool(floats) and all(d == dt.f64 for d in floats)


def all_cases() -> list[Case]:
    """Return the whole table."""
    from tests.ops import (
        attention_cases,
        composite_cases,
        contraction_cases,
        control_cases,
        elementwise_cases,
        movement_cases,
    )

    return [
        *elementwise_cases.CASES,
        *movement_cases.CASES,
        *contraction_cases.CASES,
        *composite_cases.CASES,
        *attention_cases.CASES,
        *control_cases.CASES,
    ]


CASES = all_cases()
