"""Runs what scheduling makes, in three ways.

`run_works` interprets kernels of level T with numpy, all points of a stage at once; it also checks that every load and store lies
inside its buffer. `run_program` puts the lowered program through the program oracle. `run_natively` compiles it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tapeout.codegen.build import build
from tapeout.ir.affine import Affine, Axis, FloorDiv
from tapeout.ir.graph import Graph
from tapeout.kernel.compute import (
    Apply,
    Bitcast,
    Cast,
    Const,
    ContractionKernel,
    Expr,
    Index,
    Kernel,
    Load,
    LoopKernel,
    Reduce,
    ScatterKernel,
    Store,
    Temp,
)
from tapeout.kernel.program import Layout, Program
from tapeout.kernel.target import AVX2
from tapeout.oracle import program as program_oracle
from tapeout.oracle import scalars
from tapeout.runtime.executable import Executable
from tapeout.schedule.build import Plan, plan_works, schedule
from tapeout.schedule.layout import plan_variables
from tapeout.schedule.model import Home

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


_JOIN = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def run_works(
    graph: Graph, inputs: Arrays, variables: Arrays
) -> tuple[dict[str, Array], dict[str, Array], Plan]:
    """Return outputs, the variables after the updates, and the plan that was run."""
    layout = plan_variables(graph.variables)
    plan = plan_works(graph, layout)
    memory = _memory(plan, layout, inputs, variables)
    late = [work.late for work in plan.works]
    assert late == sorted(late), "something follows an update"
    for work in plan.works:
        _Run(work.kernel, [memory[h.name] for h in work.homes]).run()
    outputs = {name: _logical(memory[h.name], h) for name, h in plan.fused.outputs.items()}
    after = {v.name: np.reshape(memory[v.name], v.type.shape) for v in graph.variables}
    return outputs, after, plan


def _memory(plan: Plan, layout: Layout, inputs: Arrays, variables: Arrays) -> dict[str, Array]:
    """Return flat arrays by name of home; what nothing has written reads as NaN."""
    memory: dict[str, Array] = {}
    given = {"input": inputs, "constant": plan.fused.constants}
    persistent = np.zeros(layout.bytes, np.uint8)
    slots = layout.slot
    for s in layout.slots:
        view = persistent[s.offset : s.offset + s.type.bytes].view(s.type.dtype.numpy)
        memory[s.name] = view
        view[:] = np.ravel(variables[s.name])
    for r in plan.regions:
        if r.home.space == "variable":
            start = slots[r.parts[0][0]].offset
            spanned = persistent[start : start + r.home.type.bytes]
        else:
            spanned = np.full(r.home.type.bytes, 0xFF, np.uint8)
        memory[r.home.name] = spanned.view(r.home.type.dtype.numpy)
        homes = {h.name: h for w in plan.works for h in w.homes} | plan.fused.homes
        for name, at in r.parts if r.home.space == "gradient" else ():
            part = spanned[at : at + homes[name].type.bytes]
            memory[name] = part.view(homes[name].type.dtype.numpy)
    outputs = plan.fused.outputs.values()
    for home in (*plan.fused.sources, *outputs, *(h for w in plan.works for h in w.homes)):
        if home.name in memory:
            continue
        if home.space in given:
            dtype = home.type.dtype.numpy
            memory[home.name] = np.ravel(np.array(given[home.space][home.name], dtype))
        else:
            bits = np.full(home.type.bytes, 0xFF, np.uint8)
            memory[home.name] = bits.view(home.type.dtype.numpy)
    return memory


def _logical(flat: Array, home: Home) -> Array:
    shape = [home.type.shape[d] for d in home.order]
    return flat.reshape(shape).transpose(np.argsort(home.order) if shape else ())


class _Run:
    """One kernel."""

    def __init__(self, kernel: Kernel, memory: Sequence[Array]) -> None:
        self.kernel = kernel
        self.buffers = {b.name: b for b in kernel.buffers}
        self.memory = {b.name: m for b, m in zip(kernel.buffers, memory, strict=True)}
        self.temps: dict[str, Array] = {}

    def run(self) -> None:
        kernel = self.kernel
        if isinstance(kernel, LoopKernel):
            together: list[Store] = []
            for stage in kernel.stages:
                if isinstance(stage, Store) and not stage.axes:
                    together.append(stage)
                    continue
                self._store(together, kernel.axes)
                together = []
                self._stage(stage, kernel.axes)
            self._store(together, kernel.axes)
        elif isinstance(kernel, ContractionKernel):
            outer = (*kernel.batch, *kernel.m, *kernel.n)
            axes = _Axes((*outer, *kernel.k))
            a, b = self._value(kernel.a, axes), self._value(kernel.b, axes)
            product = axes.full(a.astype(kernel.accumulate.numpy)) * b
            total = product.sum(axis=tuple(range(len(outer), len(axes.axes))))
            self.temps["acc"] = total.astype(kernel.accumulate.numpy)
            for stage in kernel.stages:
                self._stage(stage, outer)
        else:
            self._scatter(kernel)

    def _stage(self, stage: Reduce | Store, outer: Sequence[Axis]) -> None:
        axes = _Axes((*outer, *stage.axes))
        value = axes.full(self._value(stage.value, axes))
        if isinstance(stage, Store):
            self._write(stage.buffer, stage.index, value, axes)
            return
        inner = tuple(range(len(outer), len(axes.axes)))
        flat = value.reshape([*value.shape[: len(outer)], -1]) if inner else value[..., None]
        self.temps[stage.name] = _combine(stage.combine, flat).astype(stage.dtype.numpy)

    def _store(self, stages: Sequence[Store], outer: Sequence[Axis]) -> None:
        axes = _Axes(outer)
        values = [np.array(axes.full(self._value(s.value, axes))) for s in stages]
        for s, value in zip(stages, values, strict=True):
            self._write(s.buffer, s.index, value, axes)

    def _write(self, name: str, index: Sequence[Affine], value: Array, axes: "_Axes") -> None:
        buffer = self.buffers[name]
        assert "w" in buffer.access, name
        places = [axes.index(i) for i in index]
        for i, n in zip(places, buffer.shape, strict=True):
            assert i.size == 0 or (i.min() >= 0 and i.max() < n), f"store outside {name}"
        flat = sum((i * s for i, s in zip(places, buffer.strides, strict=True)), axes.zero)
        self.memory[name][np.broadcast_to(flat, value.shape)] = value

    def _scatter(self, kernel: ScatterKernel) -> None:
        axes = _Axes((*kernel.axes, *kernel.points))
        buffer = self.buffers[kernel.target]
        flat = axes.zero
        for i, s in zip(kernel.index, buffer.strides, strict=True):
            at = axes.index(i) if isinstance(i, Affine) else self._value(i, axes)
            flat = flat + at * s
        target = self.memory[kernel.target]
        count = math.prod(a.extent for a in kernel.points)
        value = axes.full(self._value(kernel.value, axes))
        places = np.broadcast_to(flat, value.shape).reshape(-1, count)
        for point in range(count):
            # A value may read what an earlier point has written.
            value = axes.full(self._value(kernel.value, axes)) if kernel.combine == "set" else value
            new, at = value.reshape(-1, count)[:, point], places[:, point]
            target[at] = new if kernel.combine == "set" else _JOIN[kernel.combine](target[at], new)

    def _value(self, root: Expr, axes: "_Axes") -> Array:
        made: dict[int, Array] = {}
        stack = [root]
        while stack:
            e = stack[-1]
            parts = _parts(e)
            missing = [p for p in parts if id(p) not in made]
            if missing:
                stack += missing
                continue
            made[id(e)] = self._one(e, axes, [made[id(p)] for p in parts])
            stack.pop()
        return made[id(root)]

    def _one(self, e: Expr, axes: "_Axes", parts: list[Array]) -> Array:
        if isinstance(e, Const):
            return np.asarray(e.value).astype(e.dtype.numpy)
        if isinstance(e, Index):
            return axes.index(e.index)
        if isinstance(e, Temp):
            value = self.temps[e.name]
            return value.reshape([*value.shape, *(1 for _ in axes.axes[value.ndim :])])
        if isinstance(e, Cast):
            return scalars.cast(parts[0], e.dtype)
        if isinstance(e, Bitcast):
            return scalars.bitcast(parts[0], e.dtype)
        if isinstance(e, Apply):
            with np.errstate(all="ignore"):
                dtype = e.args[-1].dtype
                return scalars.apply(e.op, tuple(np.broadcast_arrays(*parts)), dtype)
        assert isinstance(e, Load)
        return self._load(e, axes, iter(parts))

    def _load(self, e: Load, axes: "_Axes", gathered: Any) -> Array:
        buffer = self.buffers[e.buffer]
        assert "r" in buffer.access, e.buffer
        holds = np.ones([1] * len(axes.axes), bool)
        for g in e.where:
            at = axes.index(g.index)
            holds = holds & (at >= g.lo) & (at < g.hi)
        flat = axes.zero
        for i, n, s in zip(e.index, buffer.shape, buffer.strides, strict=True):
            at = axes.index(i) if isinstance(i, Affine) else np.clip(next(gathered), 0, n - 1)
            assert np.all(~holds | ((at >= 0) & (at < n))), f"load outside {e.buffer}: {e}"
            flat = flat + np.where(holds, at, 0) * s
        value = (
            self.memory[e.buffer][flat] if flat.size else np.zeros(flat.shape, buffer.dtype.numpy)
        )
        other = np.asarray(e.other).astype(e.dtype.numpy)
        return np.where(holds, value, other).astype(e.dtype.numpy)


class _Axes:
    """A grid of points, one numpy dimension per axis."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.axes = tuple(axes)
        self.shape = tuple(a.extent for a in axes)
        self.zero = np.zeros([1] * len(self.axes), np.int64)
        self._grid = {
            a: np.arange(a.extent).reshape([-1 if b is a else 1 for b in self.axes])
            for a in self.axes
        }

    def full(self, value: Array) -> Array:
        return np.broadcast_to(value, self.shape)

    def index(self, index: Affine) -> Array:
        total = self.zero + index.const
        for atom, c in index.terms:
            if isinstance(atom, Axis):
                part = self._grid[atom]
            elif isinstance(atom, FloorDiv):
                part = self.index(atom.of) // atom.by
            else:
                part = self.index(atom.of) % atom.by
            total = total + part * c
        return total


def _parts(e: Expr) -> list[Expr]:
    if isinstance(e, Apply):
        return list(e.args)
    if isinstance(e, Cast | Bitcast):
        return [e.arg]
    return [i for i in e.index if isinstance(i, Expr)] if isinstance(e, Load) else []


def _combine(how: str, flat: Array) -> Array:
    if how in ("argmax", "argmin"):
        return getattr(np, how)(flat, axis=-1)
    if how in ("max", "min") and flat.shape[-1] == 0:
        low = np.inf if flat.dtype.kind == "f" else np.iinfo(flat.dtype).max
        return np.full(flat.shape[:-1], low if how == "min" else -low - (flat.dtype.kind != "f"))
    return getattr(np, how)(flat, axis=-1)


def run_program(
    graph: Graph, inputs: Arrays, variables: Arrays
) -> tuple[Program, int, dict[str, Array], dict[str, Array]]:
    """Schedule and lower a graph, and run it; returns the program, its code, outputs, and variables afterwards."""
    layout = plan_variables(graph.variables)
    program = schedule(graph, layout, AVX2)
    arena = np.zeros(program.arena, np.uint8)
    for v in graph.variables:
        raw = np.array(variables[v.name], v.type.dtype.numpy).tobytes()
        start = layout.slot[v.name].offset
        arena[start : start + len(raw)] = np.frombuffer(raw, np.uint8)
    code = program_oracle.run(program, arena, inputs)
    data = np.frombuffer(program.data, np.uint8)
    outputs = {}
    for name, place in program.outputs.items():
        b = program.buffers[place]
        if b.space == "input":
            outputs[name] = np.asarray(inputs[place])
            continue
        memory = data if b.space == "constant" else arena
        flat = np.frombuffer(memory[b.offset : b.offset + b.bytes].tobytes(), b.type.dtype.numpy)
        outputs[name] = _logical(flat, Home(b.name, b.type, b.order, b.space))
    after = {}
    for v in graph.variables:
        start = layout.slot[v.name].offset
        raw = arena[start : start + v.type.bytes].tobytes()
        after[v.name] = np.frombuffer(raw, v.type.dtype.numpy).reshape(v.type.shape)
    return program, code, outputs, after


def run_natively(
    graph: Graph, inputs: Arrays, variables: Arrays, threads: int = 2
) -> tuple[int, dict[str, Array], dict[str, Array]]:
    """Schedule and compile a graph with bounds tests, and run it; returns its code, outputs, and variables afterwards."""
    program = schedule(graph, plan_variables(graph.variables), AVX2)
    objects, entry = build(program, AVX2, checked=True)
    run = Executable(program, objects, entry=entry, checked=True, threads=threads)
    for name, value in variables.items():
        run.set_variable(name, np.array(value, graph.variable[name].type.dtype.numpy))
    code = run.run(inputs)
    return code, run.outputs(), {v.name: run.variable(v.name) for v in graph.variables}


def equal(got: Arrays, want: Arrays) -> None:
    """Compare arrays by name, to 1e-9 of the largest entry."""
    for name, expected in want.items():
        largest = max(1.0, float(np.abs(expected).max(initial=0.0)))
        np.testing.assert_allclose(
            got[name], expected, rtol=1e-9, atol=1e-9 * largest, err_msg=name
        )
