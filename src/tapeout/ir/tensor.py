"""Constant data, compared by content."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import DType, from_numpy

if TYPE_CHECKING:
    from tapeout.ir.op import Array
    from tapeout.ir.type import Shape


class Tensor:
    """A read-only array; two with the same type, shape and bits are equal."""

    def __init__(self, array: Array) -> None:
        """Wrap an array that nobody else changes; use `of` to be sure."""
        self.array = array

    @classmethod
    def of(cls, array: Array) -> Tensor:
        """Return a tensor of a private, row-major, read-only copy."""
        copy = np.array(array, order="C", copy=True)
        copy.setflags(write=False)
        return cls(copy)

    @property
    def dtype(self) -> DType:
        """Element type."""
        return from_numpy(self.array.dtype)

    @property
    def shape(self) -> Shape:
        """Shape."""
        return tuple(self.array.shape)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of dtype, shape and bits, in hex."""
        head = f"{self.dtype.name}{list(self.shape)}".encode()
        return hashlib.sha256(head + self.array.tobytes()).hexdigest()

    @cached_property
    def splat(self) -> int | float | bool | None:
        """The number that every element is, bit by bit, or None if they differ (or there is none)."""
        if not self.array.size:
            return None
        flat = self.array.reshape(-1)
        first = flat[:1].tobytes()
        return flat[0].item() if flat.tobytes() == first * flat.size else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"#{self.digest[:12]}"
