"""Entry points of one module over one memory: compiled as needed, the variables shared."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tapeout.driver.options import Options, resolve_target
from tapeout.driver.pipeline import lower, optimize
from tapeout.kernel.program import Check, Launch
from tapeout.runtime import jit
from tapeout.schedule.layout import plan_variables
from tapeout.support import env
from tapeout.support.errors import OptionError, TapeoutError, nearest

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph, Variable
    from tapeout.ir.op import Array
    from tapeout.kernel.program import Program


class CheckFailed(TapeoutError):
    """A check of the program fired; nothing was updated."""


class Session:
    def __init__(self, variables: Sequence[Variable], *, target="native", threads=None, checked=None, guard=False):
        options = Options(resolve_target(target))
        if checked is not None:
            from dataclasses import replace
            options = replace(options, checked=checked)
        self.options = options
        self.threads = threads or env.threads()
        self.variables = {v.name: v for v in variables}
        self.layout = plan_variables(list(variables))
        self.compile_seconds = 0.0
        self._names = set()
        self._arena = _aligned(max(self.layout.bytes, 64))
        for v in variables:
            if v.initial is not None:
                self.write(v.name, v.initial)

    @property
    def kernels(self):
        return len(self._names)

    def _view(self, name):
        slot = self.layout.slot.get(name)
        if slot is None:
            raise OptionError(f"no variable {name!r}", hint=nearest(name, self.layout.slot))
        t = slot.type
        return self._arena[slot.offset : slot.offset + t.bytes].view(t.dtype.numpy).reshape(t.shape)

    def read(self, name) -> Array:
        return self._view(name).copy()

    def write(self, name, array):
        self._view(name)[...] = array

    def prepare(self, graph: Graph) -> Entry:
        start = time.perf_counter()
        for stage in optimize(graph, self.options):
            graph = stage.graph
        program = lower(graph, self.layout, self.options)
        from tapeout.codegen import cpu
        objects = cpu.compile_objects(program.kernels, self.options.target, checked=self.options.checked)
        if program.arena > self._arena.size:
            new = _aligned(program.arena)
            new[: self.layout.bytes] = self._arena[: self.layout.bytes]
            self._arena = new
        self._names |= set(program.kernels)
        self.compile_seconds += time.perf_counter() - start
        return Entry(self, program, objects)


class Entry:
    def __init__(self, session, program: Program, objects):
        self.session, self.program = session, program
        names = list(program.kernels)
        self.library = jit.Library(objects.values(), names)
        self.functions = {n: jit.KernelFunction(self.library[n]) for n in names}
        self.data = np.frombuffer(bytes(program.data) + bytes(64), np.uint8).copy()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        p = self.program
        arena = self.session._arena
        base = arena.ctypes.data
        held = {}
        def address(name):
            b = p.buffers[name]
            if b.space == "input":
                a = inputs[p.inputs[b.offset]]
                held[name] = a
                return a.ctypes.data
            if b.space == "constant":
                return self.data.ctypes.data + b.offset
            return base + b.offset
        fault = (ctypes.c_int64 * 4)()
        for item in p.items:
            if isinstance(item, Check):
                b = p.buffers[item.buffer]
                if ctypes.c_uint8.from_address(address(item.buffer)).value:
                    raise CheckFailed(item.message)
                continue
            k = p.kernels[item.kernel]
            args = (ctypes.c_void_p * (len(item.args) + 1))(*[address(a) for a in item.args], ctypes.addressof(fault))
            self.functions[item.kernel](args, 0, k.tasks)
            if self.session.options.checked:
                jit.raise_fault(fault)
        out = {}
        for name, bname in p.outputs.items():
            b = p.buffers[bname]
            t = b.type
            src = (ctypes.c_uint8 * t.bytes).from_address(address(bname)) if t.bytes else b""
            phys = np.frombuffer(src, t.dtype.numpy).reshape([t.shape[d] for d in b.order])
            out[name] = phys.transpose(np.argsort(b.order)).copy() if t.rank else phys.reshape(()).copy()
        return out


def _aligned(size):
    raw = np.zeros(size + 64, np.uint8)
    off = -raw.ctypes.data % 64
    return raw[off : off + size]
