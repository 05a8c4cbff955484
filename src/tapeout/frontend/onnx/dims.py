"""Inputs, and the named dimensions that their shapes hold."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx import tensors
from tapeout.ir.type import Dim, TensorType
from tapeout.support.errors import OnnxImportError, OptionError, ShapeError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import ArrayLike

    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array

Shape = tuple["int | str", ...]


@dataclass(frozen=True)
class Input:
    """An input as the file declares it, with what the user bound; names stand for unbound sizes."""

    name: str
    dtype: DType
    shape: Shape


def declared(value: onnx.ValueInfoProto, file: str) -> tuple[DType, tuple[int | str, ...] | None]:
    """Return the type of an input: sizes, names of sizes, `name_axis` for sizes without a name.

    Raises:
        OnnxImportError: It is no tensor, has no element type, or a size is negative.
    """
    where = f"{file}: input {value.name!r}"
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        text = f"is a {(kind or 'value without a type').removesuffix('_type')}, not a tensor"
        raise OnnxImportError(text, where=where)
    tensor = value.type.tensor_type
    dtype = tensors.element_type(tensor.elem_type, where)
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, tuple(_size(d, value.name, i, where) for i, d in enumerate(tensor.shape.dim))


def _size(dim: onnx.TensorShapeProto.Dimension, name: str, axis: int, where: str) -> int | str:
    # Some exporters write a placeholder for a size that is not known, the same one for all.
    if any(c.isalpha() for c in dim.dim_param) and dim.dim_param != "None":
        return dim.dim_param
    if dim.dim_value < -1:
        raise OnnxImportError(f"dimension {axis} is {dim.dim_value}", where=where)
    # 0 and -1 are what some exporters write for a size that is not known.
    return dim.dim_value if dim.dim_value > 0 else f"{name}_{axis}"


def bind_inputs(
    values: Sequence[onnx.ValueInfoProto],
    shapes: Mapping[str, Sequence[int | None]],
    dims: Mapping[str, int],
    file: str,
) -> list[Input]:
    """Return the inputs with every size bound that `dims` and `shapes` bind.

    Raises:
        OptionError: A name is unknown, or a number is not positive.
        ShapeError: A shape contradicts the file.
    """
    names = [v.name for v in values]
    for name in shapes:
        if name not in names:
            raise OptionError(f"shapes: no input {name!r}", where=file, hint=nearest(name, names))
    bound = {name: _size_of(name, size, file) for name, size in dims.items()}
    found = [_with_shape(v, shapes.get(v.name), bound, file) for v in values]
    known = {size for i in found for size in i.shape if isinstance(size, str)}
    for name in dims:
        if name not in known:
            hint = nearest(name, sorted(known))
            raise OptionError(f"dims: no named dimension {name!r}", where=file, hint=hint)
    return [
        Input(i.name, i.dtype, tuple(bound.get(s, s) if isinstance(s, str) else s for s in i.shape))
        for i in found
    ]


def _size_of(name: str, size: int, file: str) -> int:
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0:
        raise OptionError(f"dimension {name!r} is bound to {size!r}, not to a size", where=file)
    return int(size)


def _with_shape(
    value: onnx.ValueInfoProto, asked: Sequence[int | None] | None, bound: dict[str, int], file: str
) -> Input:
    dtype, shape = declared(value, file)
    where = f"{file}: input {value.name!r}"
    if asked is None:
        if shape is None:
            hint = f"state it: shapes={{{value.name!r}: (...)}}"
            raise OnnxImportError("the file does not say its rank", where=where, hint=hint)
        return Input(value.name, dtype, shape)
    if shape is None:
        shape = tuple(f"{value.name}_{i}" for i in range(len(asked)))
    if len(asked) != len(shape):
        raise ShapeError(f"shape {list(asked)} is asked, the file says {list(shape)}", where=where)
    for name, size in zip(shape, asked, strict=True):
        if size is None:
            continue
        wanted = _size_of(str(name), size, where)
        if (bound.setdefault(name, wanted) if isinstance(name, str) else name) != wanted:
            text = f"shape {list(asked)} is asked, the file says {list(shape)}"
            stated = f" with {name} = {bound[name]}" if isinstance(name, str) else ""
            raise ShapeError(text + stated, where=where)
    return Input(value.name, dtype, shape)


def unbound(inputs: Sequence[Input]) -> list[str]:
    """Return the named dimensions in the order in which they appear."""
    return list(dict.fromkeys(s for i in inputs for s in i.shape if isinstance(s, str)))


def previews(names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Return bindings to try while nothing is bound: small, then such that strides and windows fit, then 1.

    Different names get different primes, so that sizes are only equal where the model says so.
    """
    primes = list(itertools.islice(_primes(), len(names)))
    if not names:
        yield {}
        return
    yield dict(zip(names, primes, strict=True))
    yield {n: 32 * p for n, p in zip(names, primes, strict=True)}
    yield {n: 224 if p > 2 else 2 for n, p in zip(names, primes, strict=True)}
    yield dict.fromkeys(names, 1)


def _primes() -> Iterator[int]:
    found: list[int] = []
    for n in itertools.count(2):
        if all(n % p for p in found):
            found.append(n)
            yield n


def input_type(declared_input: Input, dims: Mapping[str, int], named: bool) -> TensorType:
    """Return the type of an input for a binding; with `named`, sizes remember their names."""
    sizes = [
        s if isinstance(s, int) else Dim.named(s, dims[s]) if named else dims[s]
        for s in declared_input.shape
    ]
    return TensorType(declared_input.dtype, tuple(sizes))


def bound_value(value: ArrayLike, declared_type: Input, file: str) -> Array:
    """Return what the user bound an input to, as an array of the declared type.

    Raises:
        ShapeError: It does not fit the declared shape.
        OptionError: A number is not representable in the declared element type.
    """
    where = f"{file}: input {declared_type.name!r}"
    given = np.asarray(value)
    array = given.astype(declared_type.dtype.numpy)
    if given.size and not np.array_equal(array.astype(given.dtype), given):
        text = f"bound to {given.dtype}, which does not fit into {declared_type.dtype}"
        raise OptionError(text, where=where)
    shape = declared_type.shape
    fits = len(shape) == array.ndim and all(
        isinstance(s, str) or s == n for s, n in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"bound to shape {list(array.shape)}, the file says {list(shape)}", where=where
        )
    return array
