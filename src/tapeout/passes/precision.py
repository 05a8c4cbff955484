"""The same graph in another precision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.build import Builder
from tapeout.ir.dtype import f32, f64
from tapeout.ir.graph import Graph, Variable
from tapeout.ops import elementwise as ew
from tapeout.ops import movement as mv

if TYPE_CHECKING:
    from tapeout.ir.graph import Value
    from tapeout.ir.op import Op
    from tapeout.ir.type import TensorType


def widen(graph: Graph) -> Graph:
    """Return the graph with every f32 made f64: inputs, variables and constants too. It is how gradients are checked."""
    b = Builder(graph.name)
    new: dict[Value, Value] = {}
    for v in graph.inputs:
        new[v] = b.add_input(v.name, _wide(v.type))
    for var in graph.variables:
        new[var.value] = b.adopt(_wide_variable(var))
    for node in graph.nodes:
        results = b.emit(_wide_op(node.op), *(new[v] for v in node.operands), loc=node.loc)
        new.update(zip(node.results, results, strict=True))
    for name, value in graph.outputs:
        b.set_output(name, new[value])
    for name, value in graph.updates:
        b.set_update(name, new[value])
    for check in graph.checks:
        b.add_check(new[check.bad], check.message)
    return b.graph(graph.dims)


def _wide(type_: TensorType) -> TensorType:
    return type_.with_dtype(f64) if type_.dtype == f32 else type_


def _wide_variable(v: Variable) -> Variable:
    if v.type.dtype != f32:
        return v
    initial = None if v.initial is None else v.initial.astype(np.float64)
    return Variable(v.name, _wide(v.type), v.kind, v.trainable, initial)


def _wide_op(op: Op) -> Op:
    if isinstance(op, mv.Constant) and op.tensor.dtype == f32:
        return mv.Constant(tensor=mv.Tensor.of(op.tensor.array.astype(np.float64)))
    if isinstance(op, (ew.Cast, mv.Iota)) and op.dtype == f32:
        return replace(op, dtype=f64)
    return op
