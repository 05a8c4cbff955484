"""Element types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    Attributes:
        name: The spelling in `.tape` text and in error messages.
        kind: `f` float, `i` signed, `u` unsigned, `b` bool.
        bits: Width in memory, in bits; a bool takes 8.
    """

    name: str
    kind: str
    bits: int

    @property
    def bytes(self) -> int:
        """Width in memory, in bytes."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        """Whether gradients may flow through values of this type."""
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        """Whether this is a signed or unsigned integer type (bool is not)."""
        return self.kind in "iu"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy type of the same bits."""
        if self.name == "bf16":
            import ml_dtypes

            bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
            return bfloat16
        found: np.dtype[Any] = np.dtype(_NUMPY[self.name])
        return found

    def __str__(self) -> str:
        return self.name


f16 = DType("f16", "f", 16)
bf16 = DType("bf16", "f", 16)
f32 = DType("f32", "f", 32)
f64 = DType("f64", "f", 64)
i8 = DType("i8", "i", 8)
i16 = DType("i16", "i", 16)
i32 = DType("i32", "i", 32)
i64 = DType("i64", "i", 64)
u8 = DType("u8", "u", 8)
u16 = DType("u16", "u", 16)
u32 = DType("u32", "u", 32)
u64 = DType("u64", "u", 64)
bool_ = DType("bool", "b", 8)

ALL = (f16, bf16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64, bool_)
BY_NAME = {d.name: d for d in ALL}
_NUMPY = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "bool": "bool",
    **{f"{k}{b}": f"{n}{b}" for k, n in (("i", "int"), ("u", "uint")) for b in (8, 16, 32, 64)},
}
_FROM_NUMPY = {"bfloat16": bf16, **{np.dtype(n).name: BY_NAME[d] for d, n in _NUMPY.items()}}


def from_numpy(dtype: np.dtype[Any] | type) -> DType:
    """Return the element type of a numpy type.

    Raises:
        TypeError: No element type has these bits (strings, objects, complex numbers).
    """
    name = np.dtype(dtype).name
    if name not in _FROM_NUMPY:
        raise TypeError(f"no element type for numpy {name}")
    return _FROM_NUMPY[name]
