"""Small arithmetic over one array, as in `--transform "x=(x-127.5)/127.5"`, and pictures brought to another size."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.dataset import check_finite
from tapeout.data.pictures import FUNCTIONS
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Value = NDArray[Any] | float

_MOST_CHARACTERS = 200
_MOST_OPERATIONS = 32
_HINT = (
    "write numbers, + - * /, parentheses and x, as in (x-127.5)/127.5; for pictures also pad(x, 2), "
    "resize(x, 32, 32) and channels(x, 3)"
)
_LARGEST = 1 << 16

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
}


def evaluate(expression: str, array: Array, name: str = "x") -> Array:
    """Return `expression` computed entry by entry, or by picture where it says `pad`, `resize` or `channels`.

    Args:
        expression: Text over numbers, `x` (or `name`), + - * / and parentheses, and calls such as
            `pad(x, 2)`, `resize(x, 32, 32)`, `channels(x, 3)` with whole numbers behind the array;
            at most 200 characters, 32 operations.
        array: The array that `x` and `name` stand for. Integers of 8 and 16 bits and float16 are
            computed in float32, wider integers in float64.
        name: What the array is called in messages.

    Returns:
        f32 or f64, of the array's shape unless a call changes it.

    Raises:
        DataError: Anything else stands in the text, the array does not, or the result is not
            finite.
    """
    where = f"transform of {name!r}: {expression[:_MOST_CHARACTERS]!r}"
    tree = _parse(expression, name, where)
    dtype = (
        np.result_type(array.dtype, np.float32)
        if array.dtype.kind != "f" or array.dtype.itemsize < 4
        else array.dtype
    )
    with np.errstate(all="ignore"):
        result = _value(tree, array.astype(dtype, copy=False), where)
    result = np.asarray(result, dtype)
    check_finite(result, where)
    return result


def _parse(expression: str, name: str, where: str) -> ast.expr:
    """Return the tree, in which only harmless nodes are left."""
    if len(expression) > _MOST_CHARACTERS:
        raise DataError(f"is longer than {_MOST_CHARACTERS} characters", where=where)
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise DataError("is not an arithmetic expression", where=where, hint=_HINT) from error
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.expr)]
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    nodes = [node for node in nodes if node not in called]
    for node in nodes:
        _check_node(node, name, where)
    if (
        sum(isinstance(node, ast.BinOp | ast.UnaryOp | ast.Call) for node in nodes)
        > _MOST_OPERATIONS
    ):
        raise DataError(f"has more than {_MOST_OPERATIONS} operations", where=where)
    if not any(isinstance(node, ast.Name) for node in nodes):
        raise DataError("does not use the array", where=where, hint=_HINT)
    return tree


def _check_node(node: ast.expr, name: str, where: str) -> None:
    match node:
        case ast.Name(id=text) if text in ("x", name):
            return
        case ast.Constant(value=int() | float() as value) if (
            not isinstance(value, bool) and abs(value) < 1e300
        ):
            return
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
            return
        case ast.UnaryOp(op=ast.UAdd() | ast.USub()):
            return
        case ast.Call(func=ast.Name(id=called), args=[_, *sizes], keywords=[]) if (
            called in FUNCTIONS and 1 <= len(sizes) <= 2 and all(map(_is_size, sizes))
        ):
            return
    raise DataError(f"{ast.unparse(node)!r} is not allowed", where=where, hint=_HINT)


def _is_size(node: ast.expr) -> bool:
    """Return whether an argument is a whole number of moderate size."""
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value < _LARGEST


def _value(node: ast.expr, array: Array, where: str) -> Value:
    match node:
        case ast.Constant(value=int() | float() as value):
            return np.asarray(value, array.dtype)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return np.negative(_value(operand, array, where))
        case ast.UnaryOp(operand=operand):
            return _value(operand, array, where)
        case ast.Call(func=ast.Name(id=called), args=[operand, *sizes]):
            numbers = [ast.literal_eval(size) for size in sizes]
            return FUNCTIONS[called](np.asarray(_value(operand, array, where)), numbers, where)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, array, where), _value(right, array, where)
            try:
                result: Value = _BINARY[type(op)](a, b)
            except ValueError as error:
                raise DataError(f"shapes do not fit: {error}", where=where) from error
            return result
    return array
