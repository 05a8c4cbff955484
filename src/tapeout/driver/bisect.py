"""Finds the first pass, launch or kernel that departs from its oracle.

Three oracles are compared in the order of the pipeline: the graph before and after each pass
(numpy, node by node), the program launch by launch (loops interpreted one element at a time)
against the graph, and native code against the interpreted loops. The first that differs is at
fault; where a pass is a table of rules, halving the number of rules applied finds the one
application that changed the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tapeout.driver.pipeline import OPTIMIZE, lower
from tapeout.ir.rewrite import RuleSet, rewrite
from tapeout.ir.verify import verify
from tapeout.kernel.program import Buffer, Launch, executed
from tapeout.oracle import graph as graph_oracle
from tapeout.oracle import kernel as kernel_oracle
from tapeout.passes import simplify
from tapeout.passes.simplify import Simplify
from tapeout.schedule.layout import plan_variables
from tapeout.support.errors import DataError, TapeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tapeout.driver.options import Options
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.op import Array
    from tapeout.ir.rewrite import Rule
    from tapeout.ir.type import TensorType
    from tapeout.kernel.program import Item, Program, Times
    from tapeout.passes.base import Pass

TOLERANCE = {"f64": 1e-9, "f32": 1e-4, "bf16": 4e-2, "f16": 1e-2}
"""Largest difference relative to the largest entry that still counts as rounding; other types must be equal."""

_TINY = 1e-12


@dataclass(frozen=True)
class Fault:
    """The first departure.

    Attributes:
        stage: `graph` (it cannot be run at all), the name of a pass, `schedule` or `codegen`.
        part: The rule of the pass, or the launch; empty when unknown.
        node: The node (with its place) that the rule replaced, or where the launch came from.
        result: What differs: an output, an update or a buffer.
        details: Expected and got, with the index; or what the stage raised.
    """

    stage: str
    part: str
    node: str
    result: str
    details: str

    def __str__(self) -> str:
        lines = [f"{self.stage}: {self.part}" if self.part else self.stage]
        lines += [f"  node:   {self.node}"] if self.node else []
        lines += [f"  result: {self.result}"] if self.result else []
        return "\n".join([*lines, f"  {self.details}"])


@dataclass(frozen=True)
class Feed:
    """What the graph is run on: arrays of inputs and variables by name."""

    inputs: dict[str, Array]
    variables: dict[str, Array]


def bisect(
    graph: Graph,
    options: Options,
    feed: Feed | None = None,
    *,
    passes: Sequence[Pass] = OPTIMIZE,
    told: Callable[[str, str], None] = lambda stage, verdict: None,
) -> Fault | None:
    """Return the first stage that departs from its oracle, None if all agree.

    Args:
        graph: What to compile; named dimensions stand at their preview. Keep it small: the oracles
            are slow.
        options: How to compile.
        feed: Inputs and variables; None: drawn from a fixed seed, variables at their initial
            values.
        passes: The passes to try, in order.
        told: Called with each stage and what was found.

    Raises:
        DataError: The feed breaks a check of the graph.
    """
    graph = graph.bind({})
    feed = feed or random_feed(graph)
    for step in passes:
        found, fault = _try_pass(step, graph, feed)
        told(step.name, "departs" if fault else "agrees" if found is not graph else "unchanged")
        if fault is not None:
            return fault
        graph = found
    program = lower(graph, plan_variables(graph.variables), options)
    fault = _Launches(program, graph, feed, options).run()
    for stage in ("schedule", "codegen"):
        told(stage, "departs" if fault and fault.stage == stage else "agrees" if not fault else "")
    return fault


# -- passes ---------------------------------------------------------------------------------------------------


def _try_pass(step: Pass, graph: Graph, feed: Feed) -> tuple[Graph, Fault | None]:
    """Return what the pass makes of the graph, and the fault if that is something else."""
    expected = _results(graph, feed)
    try:
        found = step.run(graph)
        verify(found)
        wrong = _departure(expected, _results(found, feed))
    except TapeoutError as e:
        part, node = _guilty_rule(step, graph, feed, expected)
        return graph, Fault(step.name, part, node, "", str(e))
    if wrong is None:
        return found, None
    part, node = _guilty_rule(step, graph, feed, expected)
    return graph, Fault(step.name, part, node, *wrong)


class _Some(RuleSet):
    """A rule set that stops after some applications, and remembers the last."""

    def __init__(self, rules: RuleSet, left: int) -> None:
        super().__init__(*rules.rules, lift=rules.lift, lower=rules.lower)
        self.left, self.count = left, 0
        self.last: tuple[str, Node] | None = None

    def apply(
        self, b: Builder, node: Node, operands: tuple[Value, ...], reads: Mapping[Value, int]
    ) -> tuple[Rule, Value] | None:
        if self.count >= self.left:
            return None
        found = super().apply(b, node, operands, reads)
        if found is not None:
            self.count, self.last = self.count + 1, (found[0].name, node)
        return found


def _guilty_rule(
    step: Pass, graph: Graph, feed: Feed, expected: Mapping[str, Array]
) -> tuple[str, str]:
    """Return the rule and the node at which the result first departs; empty for passes without rules."""
    if not isinstance(step, Simplify):
        return "", ""

    def attempt(count: int) -> tuple[bool, _Some]:
        rules = _Some(simplify.RULES, count)
        try:
            found = rewrite(graph, rules, limit=step.rounds)
            verify(found)
            return _departure(expected, _results(found, feed)) is None, rules
        except TapeoutError:
            return False, rules

    most = _Some(simplify.RULES, 1 << 60)
    try:
        rewrite(graph, most, limit=step.rounds)
    except TapeoutError:
        most.count += 1
    # Invariant: `good` applications keep the meaning, `bad` ones do not.
    good, bad = 0, most.count
    while bad - good > 1:
        middle = (good + bad) // 2
        fine, _ = attempt(middle)
        good, bad = (middle, bad) if fine else (good, middle)
    _, rules = attempt(bad)
    if rules.last is None:
        return "", ""
    return f"rule {rules.last[0]}", f"{rules.last[1].op!r} at {rules.last[1].loc or 'no place'}"


# -- schedule and code ----------------------------------------------------------------------------------------


class _Launches:
    """Runs a program launch by launch: loops against the graph, native code against loops."""

    def __init__(self, program: Program, graph: Graph, feed: Feed, options: Options) -> None:
        from tapeout.codegen.cpu import compile_objects

        self.program, self.graph, self.checked = program, graph, options.checked
        self.memory = Memory(program, feed)
        self.objects = compile_objects(program.kernels, options.target, checked=options.checked)
        self.values = _values(graph, feed)
        self.results = [self.values[r] for node in graph.nodes for r in node.results]
        self.named = {
            f"%{i}.{k}" if len(n.results) > 1 else f"%{i}": self.values[r]
            for i, n in enumerate(graph.nodes)
            for k, r in enumerate(n.results)
        }
        self.touched: dict[str, list[tuple[int, str]]] = {}
        self.numbers = {id(item): n for n, item in enumerate(program.numbered)}
        for number, item in enumerate(program.numbered):
            for name, access in self._touches(item):
                self.touched.setdefault(name, []).append((number, access))

    def run(self) -> Fault | None:
        """Return the first launch or result that departs."""
        for item, times in executed(self.program.items, self.memory.test):
            fault = self._launch(item, times) if isinstance(item, Launch) else None
            if fault is not None:
                return fault
        return self._end()

    def _launch(self, item: Launch, times: Times) -> Fault | None:
        kernel, number = self.program.kernels[item.kernel], self.numbers[id(item)]
        args = self.memory.args(item, times)
        native = {p: _aligned(a) for p, a in args.items()}
        try:
            kernel_oracle.run(kernel, args)
        except TapeoutError as e:
            return Fault("schedule", item.label, str(item.loc), "", str(e))
        for name, access in self._touches(item):
            if "w" in access and name in self.named and self._is_whole(name, number):
                details = self._stray(name)
                if details:
                    return Fault("schedule", item.label, str(item.loc), f"buffer {name}", details)
        return self._native(item, args, native)

    def _native(
        self, item: Launch, args: Mapping[str, Array], native: dict[str, Array]
    ) -> Fault | None:
        from tapeout.runtime.jit import run_kernel

        kernel, part = self.program.kernels[item.kernel], f"{item.label} ({item.kernel})"
        try:
            run_kernel(kernel, self.objects[item.kernel], native, checked=self.checked)
        except TapeoutError as e:
            return Fault("codegen", part, str(item.loc), "", str(e))
        for param, name in zip(kernel.params, item.args, strict=True):
            # What is read only may lie where results went, over an operand that dies here.
            if "w" not in param.access:
                continue
            details = _difference(args[param.name], native[param.name])
            if details:
                return Fault(
                    "codegen", part, str(item.loc), f"{param.name}, the buffer {name}", details
                )
        return None

    def _end(self) -> Fault | None:
        """Compare outputs and variables."""
        buffers, values = self.program.buffers, self.values
        ends = [(f"output {n}", v, buffers[self.program.outputs[n]]) for n, v in self.graph.outputs]
        ends += [(f"update {n}", v, self.memory.slot(n)) for n, v in self.graph.updates]
        for what, value, buffer in ends:
            details = _difference(values[value], self.memory.read(buffer))
            if details:
                return Fault("schedule", "", "", what, details)
        return None

    def _is_whole(self, name: str, number: int) -> bool:
        """Whether a buffer's content is complete after a launch: what touches it next only reads it."""
        later = [access for at, access in self.touched[name] if at > number]
        return not later or later[0] == "r"

    def _stray(self, name: str) -> str:
        """Return how a buffer differs from its value; empty if it is that or another value.

        A buffer is called after the first value that it holds; a later one may be written over it.
        """
        found = self.memory.read(self.program.buffers[name])
        details = _difference(self.named[name], found)
        if not details:
            return ""
        others = (a for a in self.results if a.shape == found.shape and a.dtype == found.dtype)
        return "" if any(not _difference(a, found) for a in others) else details

    def _touches(self, item: Item) -> list[tuple[str, str]]:
        if not isinstance(item, Launch):
            return []
        params = self.program.kernels[item.kernel].params
        return [(name, p.access) for p, name in zip(params, item.args, strict=True)]


class Memory:
    """The arena and the data of a program, poisoned where nothing was written yet."""

    def __init__(self, program: Program, feed: Feed) -> None:
        self.program = program
        self.arena = np.full(program.arena, 0xFF, np.uint8)
        self.data = np.frombuffer(program.data, np.uint8)
        self.inputs = {n: np.ascontiguousarray(a) for n, a in feed.inputs.items()}
        self.arena[: program.layout.bytes] = 0
        for slot in program.layout.slots:
            if slot.name in feed.variables:
                raw = np.ascontiguousarray(feed.variables[slot.name]).reshape(-1).view(np.uint8)
                self.arena[slot.offset : slot.offset + raw.size] = raw

    def flat(self, buffer: Buffer, times: Times = ()) -> Array:
        """Return the buffer's elements in the order of memory, as a view; `times` are the iterations of the loops around."""
        if buffer.of:
            base, start = self.program.place(buffer.name, times)
            inside = self.flat(base).view(np.uint8)[start : start + buffer.bytes]
            return inside.view(buffer.type.dtype.numpy)
        if buffer.space == "input":
            return self.inputs[buffer.name].reshape(-1)
        space = self.data if buffer.space == "constant" else self.arena
        return space[buffer.offset : buffer.offset + buffer.bytes].view(buffer.type.dtype.numpy)

    def read(self, buffer: Buffer) -> Array:
        """Return a copy of the buffer's tensor."""
        order = buffer.order
        laid = self.flat(buffer).reshape([buffer.type.shape[d] for d in order])
        return np.array(laid.transpose(np.argsort(order)) if order else laid)

    def slot(self, name: str) -> Buffer:
        """Return a variable as a buffer."""
        slot = self.program.layout.slot[name]
        return Buffer(name, slot.type, tuple(range(slot.type.rank)), "variable", slot.offset)

    def args(self, item: Launch, times: Times) -> dict[str, Array]:
        """Return the launch's buffers by the kernel's names for them, as views."""
        params = self.program.kernels[item.kernel].params
        buffers = self.program.buffers
        return {
            p.name: self.flat(buffers[n], times) for p, n in zip(params, item.args, strict=True)
        }

    def test(self, name: str, times: Times) -> bool:
        """Return what a bool buffer holds."""
        return bool(self.flat(self.program.buffers[name], times)[0])


def _aligned(array: Array) -> Array:
    """Return a copy that starts at a multiple of 64 bytes, as buffers of the arena do."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(array.dtype)
    copy[...] = array
    return copy


# -- running and comparing ------------------------------------------------------------------------------------


def random_feed(graph: Graph, seed: int = 0) -> Feed:
    """Return inputs and variables drawn from a seed.

    Floats are normal, integers 0 or 1 (valid as labels and indices). Variables stand at their
    initial values, except float states that are all zero: there, a fault would not show, so they
    are drawn from [0.1, 1).

    Raises:
        DataError: The drawn numbers break a check of the graph.
    """
    inputs = {v.name: _drawn(v.type, [seed, i]) for i, v in enumerate(graph.inputs)}
    variables = {}
    for i, v in enumerate(graph.variables):
        value = v.initial
        if value is None:
            value = _drawn(v.type, [seed + 1, i])
        if v.kind == "state" and v.type.dtype.is_float and not np.any(value):
            rng = np.random.default_rng([seed + 2, i])
            value = rng.uniform(0.1, 1.0, v.type.shape).astype(v.type.dtype.numpy)
        variables[v.name] = np.asarray(value)
    feed = Feed(inputs, variables)
    failed = graph_oracle.run(graph, feed.inputs, feed.variables).failed
    if failed:
        raise DataError(f"numbers drawn at random break a check: {failed[0]}", hint="give data")
    return feed


def _drawn(type_: TensorType, seed: list[int]) -> Array:
    rng = np.random.default_rng(seed)
    if type_.dtype.is_float:
        return np.asarray(rng.standard_normal(type_.shape), type_.dtype.numpy)
    return np.asarray(rng.integers(0, 2, type_.shape), type_.dtype.numpy)


def _values(graph: Graph, feed: Feed) -> dict[Value, Array]:
    """Return every value of the graph by the oracle."""
    known: dict[Value, Array] = {v: feed.inputs[v.name] for v in graph.inputs}
    known.update({v.value: feed.variables[v.name] for v in graph.variables})
    for node in graph.nodes:
        found = graph_oracle.run_node(node, tuple(known[v] for v in node.operands))
        known.update(zip(node.results, found, strict=True))
    return known


def _results(graph: Graph, feed: Feed) -> dict[str, Array]:
    """Return outputs and updates by the oracle.

    Raises:
        DataError: A check fired.
    """
    found = graph_oracle.run(graph, feed.inputs, feed.variables)
    if found.failed:
        raise DataError(f"the data break a check: {found.failed[0]}")
    results = {f"output {n}": a for n, a in found.outputs.items()}
    return results | {f"update {n}": a for n, a in found.updates.items()}


def _departure(expected: Mapping[str, Array], got: Mapping[str, Array]) -> tuple[str, str] | None:
    """Return the first result that differs and how, None if all agree."""
    for name, array in expected.items():
        if name not in got:
            return name, "it is gone"
        details = _difference(array, got[name])
        if details:
            return name, details
    return None


def _difference(expected: Array, got: Array) -> str:
    """Return where two arrays differ most and by how much; empty if it is rounding at most."""
    if expected.shape != got.shape:
        expected, got = expected.reshape(-1), got.reshape(-1)
    a, b = expected, got
    if a.dtype.kind not in "biu":
        a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return ""
    with np.errstate(all="ignore"):
        gap = np.where(same, 0.0, np.abs(np.subtract(b, a, dtype=np.float64)))
    gap = np.where(np.isfinite(gap), gap, np.inf)
    scale = float(np.max(np.abs(a[np.isfinite(a)].astype(np.float64)), initial=_TINY))
    limit = TOLERANCE.get(_dtype_name(expected), 0.0)
    worst = float(np.max(gap))
    if worst <= limit * scale:
        return ""
    at = np.unravel_index(int(np.argmax(gap)), gap.shape)
    where = f" at {[int(i) for i in at]}" if at else ""
    return (
        f"expected {_short(expected[at])}, got {_short(got[at])}{where} "
        f"(difference {worst:.3g}, largest entry {scale:.3g})"
    )


def _short(x: np.generic) -> str:
    return str(x) if x.dtype.kind in "biu" else f"{float(x):.6g}"


def _dtype_name(array: Array) -> str:
    from tapeout.ir.dtype import from_numpy

    return from_numpy(array.dtype).name
