"""Rounding to whole numbers. The gradients are 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.op import register
from tapeout.ops.elementwise.base import Map1

if TYPE_CHECKING:
    from tapeout.ir.op import Array, T
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym


class _Rounding(Map1):
    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply(self.name, *xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return None


@register
class Floor(_Rounding):
    """Round down."""

    name = "floor"

    def formula(self, *xs: Array) -> Array:
        return np.floor(*xs)


@register
class Ceil(_Rounding):
    """Round up."""

    name = "ceil"

    def formula(self, *xs: Array) -> Array:
        return np.ceil(*xs)


@register
class Round(_Rounding):
    """Round to the nearest whole number, halves to the even one."""

    name = "round"

    def formula(self, *xs: Array) -> Array:
        return np.rint(*xs)
