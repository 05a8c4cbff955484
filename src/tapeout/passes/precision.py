"""The same graph in f64, for checking gradients."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.ir.build import Builder
from tapeout.ir.dtype import DType, f64
from tapeout.ir.graph import Check, Graph, Value, Variable
from tapeout.ir.region import with_bodies
from tapeout.ir.tensor import Tensor
from tapeout.ops.elementwise import Bitcast
from tapeout.support.errors import NotDifferentiable

if TYPE_CHECKING:
    from tapeout.ir.op import Op
    from tapeout.ir.type import TensorType


def widen(graph: Graph) -> Graph:
    """Return the graph with every float in f64: inputs, variables, constants and conversions.

    Raises:
        NotDifferentiable: A bitcast between floats and integers is in the graph; it has no meaning in another width.
    """
    b = Builder(graph.name)
    new: dict[Value, Value] = {}
    for x in graph.inputs:
        new[x] = b.add_input(x.name, _wide(x.type))
    for v in graph.variables:
        new[v.value] = b.adopt(_wide_variable(v))
    for node in graph.nodes:
        if isinstance(node.op, Bitcast) and (
            node.op.dtype.is_float or node.operands[0].type.dtype.is_float
        ):
            raise NotDifferentiable("bits of a float cannot be had in f64", where=str(node.loc))
        results = b.emit(_wide_op(node.op), *(new[v] for v in node.operands), loc=node.loc)
        new.update(zip(node.results, results, strict=True))
    return replace(
        b.graph(graph.dims),
        outputs=tuple((n, new[v]) for n, v in graph.outputs),
        updates=tuple((n, new[v]) for n, v in graph.updates),
        checks=tuple(Check(new[c.bad], c.message) for c in graph.checks),
    )


def _wide(type_: TensorType) -> TensorType:
    return type_.with_dtype(f64) if type_.dtype.is_float else type_


def _wide_variable(v: Variable) -> Variable:
    if not v.type.dtype.is_float or v.type.dtype == f64:
        return v
    initial = None if v.initial is None else v.initial.astype(f64.numpy)
    return Variable(v.name, _wide(v.type), v.kind, v.trainable, initial)


def _wide_op(op: Op) -> Op:
    changed: dict[str, object] = {}
    for f in dataclasses.fields(op):
        old = getattr(op, f.name)
        if isinstance(old, DType) and old.is_float and old != f64:
            changed[f.name] = f64
        elif isinstance(old, Tensor) and old.dtype.is_float and old.dtype != f64:
            changed[f.name] = Tensor.of(old.array.astype(f64.numpy))
    op = with_bodies(op, widen)
    return replace(op, **changed) if changed else op
