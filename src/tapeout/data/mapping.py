"""Which array feeds which input of a model, and how it is brought into shape."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.dataset import Dataset, check_finite, describe, short_dtype
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]
    Shape = tuple[int | None, ...]
    Wanted = tuple[np.dtype[Any], Shape]

_LABEL_NAMES = ("labels", "label", "y", "target", "targets", "class", "classes")
_HINT = "say which array it is, as in --input {}=NAME"


@dataclass(frozen=True)
class InputRule:
    """How one input of the model is made from one array, sample by sample.

    Attributes:
        input: Name of the model's input.
        source: Name of the array.
        row: Shape of one sample in the array.
        axes: Order in which the array's axes are taken, the samples' axis 0 first; empty: as they
            are.
        shape: Shape of one sample of the input.
        dtype: NumPy's name of the input's dtype.
        divisor: What every entry is divided by after the cast; 1.0 for nothing.
    """

    input: str
    source: str
    row: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    divisor: float = 1.0

    def apply(self, array: Array) -> Array:
        """Return `array[samples, *row]` as an input `[samples, *shape]`, not copied if unchanged.

        Raises:
            DataError: Another shape of sample, or a value that the input's dtype cannot hold.
        """
        where = f"array {self.source!r}"
        if array.shape[1:] != self.row:
            raise DataError(
                f"is {describe(array)}; samples of shape {list(self.row)} are expected", where=where
            )
        moved = array.transpose(self.axes) if self.axes else array
        shaped = moved.reshape(len(array), *self.shape)
        result = _cast(shaped, np.dtype(self.dtype), where)
        return result if self.divisor == 1.0 else result / result.dtype.type(self.divisor)


@dataclass(frozen=True)
class DataMapping:
    """The rules of all inputs, in the model's order, with the lines that tell of them."""

    rules: tuple[InputRule, ...]
    lines: tuple[str, ...] = ()

    def apply(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return input name -> array `[samples, *shape]`, of a whole dataset or of one batch.

        Raises:
            DataError: An array is missing, or as in `InputRule.apply`.
        """
        missing = [rule.source for rule in self.rules if rule.source not in arrays]
        if missing:
            raise DataError(f"these arrays are missing: {', '.join(missing)}")
        return {rule.input: rule.apply(arrays[rule.source]) for rule in self.rules}

    def to_data(self) -> list[dict[str, Any]]:
        """Return the rules as plain data for JSON."""
        return [asdict(rule) for rule in self.rules]

    @staticmethod
    def from_data(data: Sequence[Mapping[str, Any]]) -> DataMapping:
        """Return the mapping that `to_data` wrote, without its lines."""
        return DataMapping(tuple(_rule_from_data(rule) for rule in data))


def infer_mapping(
    dataset: Dataset,
    model_inputs: Mapping[str, tuple[DTypeLike, Sequence[int | None]]],
    labels: str | None = None,
) -> DataMapping:
    """Find the array for each input of a model: by name, then by shape.

    An array fits if its samples have the input's shape, or come to have it by adding or dropping
    axes of size 1, by flattening or unflattening, or by moving a last axis of channels to the
    front. Bytes that feed a float input are divided by 255.

    Args:
        dataset: What `load` returned.
        model_inputs: Input name -> (dtype, shape with None for sizes that are not bound); axis 0
            counts the samples.
        labels: Name of the loss's labels (or target), which need not be an input of the model;
            None: there are none.

    Returns:
        The mapping; its `lines` are for the user.

    Raises:
        DataError: An input that no array fits, or several; the message says why each does not.
    """
    wanted = {
        name: (np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in model_inputs.items()
    }
    label_source = _find_labels(dataset, wanted, labels)
    free = {name: array for name, array in dataset.arrays.items() if name != label_source}
    chosen = {name: name for name in wanted if name in free}
    for name, want in wanted.items():
        if name != labels and name not in chosen:
            others = {k: v for k, v in free.items() if k not in chosen.values()}
            chosen[name] = _find_by_shape(name, want, others)
    rules = [
        _rule(name, chosen[name], free[chosen[name]], wanted[name])
        for name in wanted
        if name in chosen
    ]
    if labels is not None and label_source is not None:
        rules.append(
            _label_rule(labels, label_source, dataset.arrays[label_source], wanted.get(labels))
        )
    lines = [_line(rule, dataset.arrays[rule.source]) for rule in rules]
    used = {rule.source for rule in rules}
    lines += [
        f"{name}: not used ({describe(array)})"
        for name, array in dataset.arrays.items()
        if name not in used
    ]
    return DataMapping(tuple(rules), tuple(lines))


def _rule_from_data(rule: Mapping[str, Any]) -> InputRule:
    return InputRule(
        input=rule["input"],
        source=rule["source"],
        row=tuple(rule["row"]),
        axes=tuple(rule["axes"]),
        shape=tuple(rule["shape"]),
        dtype=rule["dtype"],
        divisor=rule["divisor"],
    )


def _find_labels(dataset: Dataset, wanted: Mapping[str, Wanted], labels: str | None) -> str | None:
    if labels is None:
        return None
    arrays = dataset.arrays
    named = [
        name
        for name in (labels, *_LABEL_NAMES)
        if name in arrays and (name == labels or name not in wanted)
    ]
    if named:
        return named[0]
    free = [name for name in arrays if name not in wanted]
    whole = [
        name
        for name in free
        if arrays[name].dtype.kind in "iu" and prod(arrays[name].shape[1:]) == 1
    ]
    if len(whole) == 1:
        return whole[0]
    if len(free) == 1 and len(arrays) == len(set(wanted) - {labels}) + 1:
        return free[0]
    have = ", ".join(f"{name} {describe(array)}" for name, array in arrays.items())
    raise DataError(
        f"no array is recognised as {labels!r}; there are: {have}", hint=_HINT.format(labels)
    )


def _find_by_shape(name: str, want: Wanted, arrays: Mapping[str, Array]) -> str:
    fitting = [source for source, array in arrays.items() if _fit(array.shape, want[1]) is not None]
    if len(fitting) == 1:
        return fitting[0]
    expected = f"input {name!r} is {_text(want)}"
    have = (
        ", ".join(f"{source} {describe(array)}" for source, array in arrays.items()) or "none left"
    )
    problem = (
        f"{' and '.join(fitting)} both fit" if fitting else f"no array fits; there are: {have}"
    )
    raise DataError(f"{expected}: {problem}", hint=_HINT.format(name))


def _fit(have: tuple[int, ...], want: Shape) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return (axes, shape of one sample) that bring an array `have` to an input `want`, or None."""
    row, target = have[1:], want[1:]
    if not want:
        return None
    if len(row) == len(target) and all(w in (None, h) for h, w in zip(row, target, strict=True)):
        return (), row
    if None in target:
        return _fit_open(row, target)
    fixed = tuple(size for size in target if size is not None)
    same = [s for s in row if s != 1] == [s for s in fixed if s != 1]
    if prod(row) == prod(fixed) and (same or len(row) == 1 or len(fixed) == 1):
        return (), fixed
    if len(row) == 3 and len(fixed) == 3 and (row[2], *row[:2]) == fixed and row[2] <= 4:
        return (0, 3, 1, 2), fixed
    return None


def _fit_open(
    row: tuple[int, ...], target: Shape
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """As `_fit` where sizes are open: only an axis of one channel in front may be added."""
    if target[0] in (1, None) and len(row) + 1 == len(target):
        rest = target[1:]
        if len(rest) > 1 and all(w in (None, h) for h, w in zip(row, rest, strict=True)):
            return (), (1, *row)
    return None


def _rule(name: str, source: str, array: Array, want: Wanted) -> InputRule:
    fit = _fit(array.shape, want[1])
    if fit is None:
        raise DataError(
            f"array {source!r} is {describe(array)}, input {name!r} is {_text(want)}: "
            "they do not fit",
            hint=_HINT.format(name),
        )
    dtype = want[0]
    _cast(array, dtype, f"array {source!r} for input {name!r}")
    divisor = 255.0 if array.dtype == np.uint8 and dtype.kind == "f" else 1.0
    return InputRule(name, source, array.shape[1:], fit[0], fit[1], dtype.name, divisor)


def _label_rule(name: str, source: str, array: Array, want: Wanted | None) -> InputRule:
    if want is not None:
        rule = _rule(name, source, array, want)
        return InputRule(name, source, rule.row, rule.axes, rule.shape, rule.dtype)
    row = array.shape[1:]
    dtype = array.dtype if array.dtype.kind == "f" else np.dtype(np.int64)
    single = row == (1,) and dtype.kind == "i"
    _cast(array, dtype, f"array {source!r} for {name!r}")
    return InputRule(name, source, row, (), () if single else row, dtype.name)


def _cast(array: Array, dtype: np.dtype[Any], where: str) -> Array:
    """Return the array in another dtype, refusing values that it cannot hold."""
    if array.dtype == dtype:
        return array
    if dtype.kind == "b":
        raise DataError(
            f"is {short_dtype(array.dtype)}, {short_dtype(dtype)} is expected", where=where
        )
    if dtype.kind in "iu" and array.dtype.kind != "b":
        _check_whole(array, dtype, where)
    with np.errstate(all="ignore"):
        result = array.astype(dtype)
    if dtype.kind == "f" and dtype.itemsize < array.dtype.itemsize:
        check_finite(result, f"{where}, as {short_dtype(dtype)},")
    return result


def _check_whole(array: Array, dtype: np.dtype[Any], where: str) -> None:
    if array.dtype.kind == "f" and not bool(np.all(array == np.floor(array))):
        raise DataError(f"holds fractions, {short_dtype(dtype)} is expected", where=where)
    low, high = array.min(initial=0), array.max(initial=0)
    limits = np.iinfo(dtype)
    if int(low) < limits.min or int(high) > limits.max:
        raise DataError(
            f"holds values from {low} to {high}, too large for {short_dtype(dtype)}", where=where
        )


def _text(want: Wanted) -> str:
    return f"{short_dtype(want[0])}[{','.join('?' if s is None else str(s) for s in want[1])}]"


def _line(rule: InputRule, array: Array) -> str:
    dtype = np.dtype(rule.dtype)
    shape = ",".join(["N", *map(str, rule.shape)])
    steps = []
    if rule.axes:
        steps.append("channels to the front")
    elif rule.row != rule.shape:
        steps.append(f"reshape {list(rule.row)} to {list(rule.shape)}")
    if rule.divisor != 1.0:
        steps.append(f"divide by {rule.divisor:g}")
    elif array.dtype != dtype:
        steps.append(f"cast {short_dtype(array.dtype)} to {short_dtype(dtype)}")
    how = ", ".join(steps) or "as it is"
    return (
        f"{rule.input}: {short_dtype(dtype)}[{shape}] from {rule.source} {describe(array)}: {how}"
    )
