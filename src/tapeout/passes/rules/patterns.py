"""Words of the rule tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.ir.dtype import bool_
from tapeout.ir.rewrite import Anything, Attribute, Such
from tapeout.passes.constants import splat_of

if TYPE_CHECKING:
    from tapeout.ir.graph import Value

X, Y, Z = Anything("x"), Anything("y"), Anything("z")
P, Q = Attribute("p"), Attribute("q")


def number(wanted: float, dtype_kinds: str = "fiu") -> Such:
    """Return the pattern of a value whose every element is a number; 0.0 and -0.0 differ."""

    def test(value: Value) -> bool:
        if value.type.dtype.kind not in dtype_kinds:
            return False
        found = splat_of(value)
        if found is None or found != wanted:
            return False
        return not value.type.dtype.is_float or math.copysign(1, found) == math.copysign(1, wanted)

    return Such(test)


def truth(wanted: bool) -> Such:
    """Return the pattern of a bool value whose every element is `wanted`."""
    return Such(lambda v: v.type.dtype == bool_ and splat_of(v) is wanted)


def is_power_of_two(value: Value) -> bool:
    """Whether every element is one power of two whose reciprocal is a normal number, so that both are exact."""
    found = splat_of(value)
    if not value.type.dtype.is_float or found is None or not math.isfinite(found):
        return False
    mantissa, exponent = math.frexp(abs(found))
    reach = {"f16": 14, "bf16": 126, "f32": 126, "f64": 1022}[value.type.dtype.name]
    return mantissa == 0.5 and abs(exponent - 1) <= reach


ONE = number(1)
MINUS_ONE = number(-1, "fi")
TWO = number(2)
ZERO = number(0.0)
MINUS_ZERO = number(-0.0, "f")
INT_ZERO = number(0, "iu")
TRUE, FALSE = truth(True), truth(False)
POWER_OF_TWO = Such(is_power_of_two, "c")
