"""Small arithmetic over one array, as in `--transform "x=(x-127.5)/127.5"`."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.dataset import check_finite
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Value = NDArray[Any] | float

_MOST_CHARACTERS = 200
_MOST_OPERATIONS = 32
_HINT = "write numbers, + - * /, parentheses and x, as in (x-127.5)/127.5"

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
}


def evaluate(expression: str, array: Array, name: str = "x") -> Array:
    """Return `expression` computed entry by entry.

    Args:
        expression: Text over numbers, `x` (or `name`), + - * / and parentheses; at most 200
            characters, 32 operations.
        array: The array that `x` and `name` stand for. Integers of 8 and 16 bits and float16 are
            computed in float32, wider integers in float64.
        name: What the array is called in messages.

    Returns:
        f32 or f64, of the array's shape.

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
        result = _value(tree, array.astype(dtype, copy=False))
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
    for node in nodes:
        _check_node(node, name, where)
    if sum(isinstance(node, ast.BinOp | ast.UnaryOp) for node in nodes) > _MOST_OPERATIONS:
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
    raise DataError(f"{ast.unparse(node)!r} is not allowed", where=where, hint=_HINT)


def _value(node: ast.expr, array: Array) -> Value:
    match node:
        case ast.Constant(value=int() | float() as value):
            return np.asarray(value, array.dtype)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return np.negative(_value(operand, array))
        case ast.UnaryOp(operand=operand):
            return _value(operand, array)
        case ast.BinOp(left=left, op=op, right=right):
            result: Value = _BINARY[type(op)](_value(left, array), _value(right, array))
            return result
    return array
