"""Reading types, dimensions, attributes and tensors of a `.tape` text: the mirror image of `ir.attribute`."""

from __future__ import annotations

import dataclasses
import operator
import re
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir import dtype as dtypes
from tapeout.ir.op import REGISTRY
from tapeout.ir.tensor import Tensor
from tapeout.ir.type import Dim, TensorType
from tapeout.support.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array, Op
    from tapeout.ir.scan import Scanner

HASH = re.compile(r"#([0-9a-f]{32})(?![0-9a-f])", re.ASCII)
NAN_BITS = re.compile(r"nan\(0x([0-9a-f]{1,16})\)", re.ASCII)
LIMIT = 1 << 30
"""Bytes that tensors written in the text itself (mostly of equal elements) may take together."""

_LARGEST = (1 << 63) - 1
_SIGNS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


class Reader:
    """Reads values of a text. `dims` are the unbound dimensions, `tensors` the content of the side file by hash."""

    def __init__(
        self, scanner: Scanner, dims: Mapping[str, int], tensors: Mapping[str, Array] | None
    ) -> None:
        """Read where `scanner` stands."""
        self.scanner, self.dims, self.tensors = scanner, dims, tensors
        self._bytes = 0

    def attributes(self) -> tuple[type[Op], dict[str, object]]:
        """Read the class of an operation and its attributes, all but its regions."""
        s = self.scanner
        start = s.pos
        name = s.word("an operation")
        cls = REGISTRY.get(name)
        if cls is None:
            s.fail(f"no operation is called {name!r}", start, nearest(name, REGISTRY))
        known = {f.name for f in dataclasses.fields(cls)} - set(cls.regions)
        given: dict[str, object] = {}
        if s.take("{"):
            while not given or s.take(","):
                at = s.pos
                key = s.word("an attribute")
                if key not in known or key in given:
                    why = "is given twice" if key in given else "is no attribute"
                    s.fail(f"{key!r} {why} of {name}", at, nearest(key, sorted(known)))
                s.expect("=")
                given[key] = self.value()
            s.expect("}")
        missing = [
            f.name
            for f in dataclasses.fields(cls)
            if f.default is dataclasses.MISSING and f.name in known - set(given)
        ]
        if missing:
            s.fail(f"{name} lacks {', '.join(missing)}", start)
        return cls, given

    def value(self) -> object:
        """Read an attribute."""
        s = self.scanner
        number = s.number()
        if number is not None:
            return number
        if s.sees('"'):
            return s.string("a string")
        if s.sees("("):
            return self.dim()
        if s.take("["):
            return self._tuple()
        if s.take_word("none"):
            return None
        dtype = self.dtype()
        if not s.sees("["):
            return dtype
        type_ = TensorType(dtype, self.shape())
        s.expect(":")
        found = self.literal(type_)
        if found is None:
            s.fail(
                "the tensor data of this text are needed here",
                hint="read the .tape file with its side file",
            )
        return Tensor.of(found)

    def _tuple(self) -> tuple[object, ...]:
        s = self.scanner
        items: list[object] = []
        with s.deeper():
            if not s.take("]"):
                items.append(self.value())
                while s.take(","):
                    items.append(self.value())
                s.expect("]")
        return tuple(items)

    def dtype(self) -> DType:
        """Read an element type."""
        start = self.scanner.pos
        name = self.scanner.word("a value or an element type")
        found = dtypes.BY_NAME.get(name)
        if found is None:
            self.scanner.fail(
                f"no element type is called {name!r}", start, nearest(name, dtypes.BY_NAME)
            )
        return found

    def type(self) -> TensorType:
        """Read a type."""
        return TensorType(self.dtype(), self.shape())

    def shape(self) -> tuple[int, ...]:
        """Read `[2,3]`."""
        s = self.scanner
        s.expect("[")
        sizes: list[int] = []
        if not s.take("]"):
            sizes.append(self._size())
            while s.take(","):
                sizes.append(self._size())
            s.expect("]")
        return tuple(sizes)

    def _size(self) -> int:
        s = self.scanner
        start = s.pos
        if s.sees("("):
            n: int = self.dim()
        elif s.sees('"') or s.peek_word():
            n = self._named()
        else:
            n = s.integer("a size")
        if isinstance(n, Dim) and s.take("=") and s.integer("a size") != int(n):
            s.fail(f"the dimensions at the head of the graph make this {int(n)}", start)
        if not 0 <= n <= _LARGEST:
            s.fail("a size must fit 63 bits", start)
        return n

    def _named(self) -> Dim:
        start = self.scanner.pos
        name = self.scanner.name("a dimension")
        if name not in self.dims:
            self.scanner.fail(f"no dimension is called {name!r}", start, nearest(name, self.dims))
        return Dim.named(name, self.dims[name])

    def dim(self) -> int:
        """Read `(N)`, `(N * 784)`; both sides of a sign may be in parentheses themselves."""
        s = self.scanner
        start = s.pos
        s.expect("(")
        with s.deeper():
            left = self._dim_part()
            sign = next((sign for sign in _SIGNS if s.take(sign)), None)
            if sign is not None:
                right = self._dim_part()
                if sign == "/" and not right:
                    s.fail("division by 0", start)
                left = _SIGNS[sign](left, right)
            s.expect(")")
        if abs(left) > _LARGEST:
            s.fail("a size must fit 63 bits", start)
        return left

    def _dim_part(self) -> int:
        s = self.scanner
        if s.sees("("):
            return self.dim()
        return self._named() if s.sees('"') or s.peek_word() else s.integer("a number")

    def literal(self, type_: TensorType) -> Array | None:
        """Read the content of a tensor; None if it is in a side file that was not given."""
        s = self.scanner
        start = s.pos
        found = s.match(HASH)
        if found is not None:
            return self._side(found.group(1), type_, start)
        self._bytes += type_.bytes
        if self._bytes > LIMIT:
            s.fail(f"the tensors in the text itself take more than {LIMIT} bytes", start)
        if s.sees("["):
            flat = self._elements(type_.dtype)
            if flat.size != type_.size:
                s.fail(f"{type_} has {type_.size} elements, {flat.size} are given", start)
        else:
            flat = np.repeat(self._element(type_.dtype), type_.size)
        return flat.reshape(tuple(map(int, type_.shape)))

    def _elements(self, dtype: DType) -> Array:
        s = self.scanner
        found: list[Array] = [np.zeros(0, dtype.numpy)]
        s.expect("[")
        if not s.take("]"):
            found.append(self._element(dtype))
            while s.take(","):
                found.append(self._element(dtype))
            s.expect("]")
        return np.concatenate(found)

    def _element(self, dtype: DType) -> Array:
        """Read one number as an array of one element; a NaN may show its bits."""
        s = self.scanner
        start = s.pos
        special = s.match(NAN_BITS)
        if special is not None:
            bits = int(special.group(1), 16)
            if not dtype.is_float or bits >> dtype.bits:
                s.fail(f"these are no bits of {dtype}", start)
            return np.array([bits], f"u{dtype.bytes}").view(dtype.numpy)
        number = s.number()
        fits = dtype.is_float or isinstance(number, bool if dtype.kind == "b" else int)
        if number is None or not fits or isinstance(number, bool) != (dtype.kind == "b"):
            s.fail(f"a number of type {dtype} is expected", start)
        with s.blaming(start):
            return np.array([number], np.float64 if dtype.is_float else dtype.numpy).astype(
                dtype.numpy
            )

    def _side(self, key: str, type_: TensorType, start: int) -> Array | None:
        if self.tensors is None:
            return None
        array = self.tensors.get(key)
        if array is None:
            self.scanner.fail(f"the side file holds no tensor #{key}", start)
        if array.dtype != type_.dtype.numpy or array.shape != type_.shape:
            self.scanner.fail(
                f"tensor #{key} is {array.dtype}{list(array.shape)}, not {type_}", start
            )
        return array
