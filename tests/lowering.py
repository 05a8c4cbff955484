"""Judges lowered kernels: level T evaluated with numpy index grids, against the oracle of L and native code."""

from dataclasses import dataclass, field

import numpy as np

from tapeout.ir.affine import Affine, Axis, FloorDiv
from tapeout.kernel import compute
from tapeout.kernel.compute import ContractionKernel, LoopKernel, Reduce, ScatterKernel
from tapeout.schedule.lower import lower
from tests.tolerances import close

_UFUNCS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum,
    "min": np.minimum, "neg": np.negative, "abs": np.abs, "exp": np.exp, "log": np.log,
    "sqrt": np.sqrt, "tanh": np.tanh, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "and": np.logical_and,
    "or": np.logical_or, "not": np.logical_not, "isnan": np.isnan,
}  # fmt: skip
_REDUCE = {
    "sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "any": np.any, "all": np.all,
}  # fmt: skip


@dataclass
class Evaluator:
    """Evaluates expressions over a grid of axes; every array has one dimension per axis."""

    buffers: dict[str, compute.Buffer]
    arrays: dict[str, np.ndarray]
    axes: tuple[Axis, ...]
    temps: dict[str, np.ndarray] = field(default_factory=dict)

    def index(self, at: Affine) -> np.ndarray:
        total = np.full((1,) * len(self.axes), at.const, np.int64)
        for atom, c in at.terms:
            total = total + c * self._atom(atom)
        return total

    def _atom(self, atom) -> np.ndarray:
        if isinstance(atom, Axis):
            d = self.axes.index(atom)
            shape = [1] * len(self.axes)
            shape[d] = atom.extent
            return np.arange(atom.extent, dtype=np.int64).reshape(shape)
        of = self.index(atom.of)
        return of // atom.by if isinstance(atom, FloorDiv) else of % atom.by

    def value(self, e: compute.Expr) -> np.ndarray:
        if isinstance(e, compute.Const):
            return np.full((1,) * len(self.axes), e.value, e.dtype.numpy)
        if isinstance(e, compute.Index):
            return self.index(e.index)
        if isinstance(e, compute.Temp):
            found = self.temps[e.name]
            return found.reshape(found.shape + (1,) * (len(self.axes) - found.ndim))
        if isinstance(e, compute.Cast):
            return self._cast(self.value(e.arg), e.dtype.numpy)
        if isinstance(e, compute.Bitcast):
            return self.value(e.arg).view(e.dtype.numpy)
        if isinstance(e, compute.Load):
            return self._load(e)
        args = [self.value(a) for a in e.args]
        if e.op == "select":
            return np.where(*args)
        if e.op == "fma":
            return args[0] * args[1] + args[2]
        if e.op == "sigmoid":
            return 1 / (1 + np.exp(-args[0]))
        return _UFUNCS[e.op](*args)

    def _cast(self, x: np.ndarray, dtype) -> np.ndarray:
        return x != 0 if dtype == np.bool_ else x.astype(dtype)

    def _load(self, e: compute.Load) -> np.ndarray:
        buffer = self.buffers[e.buffer]
        flat = np.zeros((1,) * len(self.axes), np.int64)
        for i, n, s in zip(e.index, buffer.shape, buffer.strides, strict=True):
            at = self.index(i) if isinstance(i, Affine) else np.clip(self.value(i), 0, n - 1)
            flat = flat + at * s
        holds = np.ones((1,) * len(self.axes), bool)
        for g in e.where:
            x = self.index(g.index)
            holds = holds & (g.lo <= x) & (x < g.hi)
        flat, holds = np.broadcast_arrays(flat, holds)
        got = self.arrays[e.buffer][np.where(holds, flat, 0)]
        return np.where(holds, got, np.asarray(e.other, got.dtype))

    def whole(self, e: compute.Expr) -> np.ndarray:
        return np.broadcast_to(self.value(e), tuple(a.extent for a in self.axes))


def evaluate(kernel: compute.Kernel, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the flat buffers after the kernel."""
    arrays = {n: a.copy() for n, a in arrays.items()}
    buffers = {b.name: b for b in kernel.buffers}
    if isinstance(kernel, ScatterKernel):
        _scatter(kernel, buffers, arrays)
        return arrays
    outer = kernel.axes if isinstance(kernel, LoopKernel) else kernel.batch + kernel.m + kernel.n
    temps: dict[str, np.ndarray] = {}
    if isinstance(kernel, ContractionKernel):
        temps["acc"] = _contract(kernel, buffers, arrays)
    for s in kernel.stages:
        at = Evaluator(buffers, arrays, outer + s.axes, temps)
        value = at.whole(s.value)
        if isinstance(s, Reduce):
            temps[s.name] = _reduce(s, value, len(outer))
            continue
        flat = at.index(buffers[s.buffer].offset(s.index))
        flat = np.broadcast_to(flat, value.shape)
        arrays[s.buffer][flat.reshape(-1)] = value.reshape(-1).astype(buffers[s.buffer].dtype.numpy)
    return arrays


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) if x.dtype.kind not in "iub" else x


def _reduce(s: Reduce, value: np.ndarray, outer: int) -> np.ndarray:
    dims = tuple(range(outer, value.ndim))
    if s.combine.startswith("arg"):
        flat = value.reshape(*value.shape[:outer], -1)
        return getattr(np, s.combine)(flat, axis=-1).astype(s.dtype.numpy)
    wide = _wide(value) if s.combine in ("sum", "prod") else value
    if s.combine in ("sum", "prod") and s.dtype.is_integer:
        wide = value.astype(s.dtype.numpy)
    return _REDUCE[s.combine](wide, axis=dims).astype(s.dtype.numpy)


def _contract(k: ContractionKernel, buffers, arrays) -> np.ndarray:
    free = (*k.batch, *k.m, *k.n)
    dims = {a: i for i, a in enumerate((*free, *k.k))}

    def factor(e: compute.Expr, axes: tuple[Axis, ...]) -> tuple[np.ndarray, list[int]]:
        x = _wide(Evaluator(buffers, arrays, axes).whole(e).astype(k.accumulate.numpy))
        return x, [dims[a] for a in axes]

    a, at_a = factor(k.a, (*k.batch, *k.m, *k.k))
    b, at_b = factor(k.b, (*k.batch, *k.n, *k.k))
    out = [dims[x] for x in free]
    return np.einsum(a, at_a, b, at_b, out, optimize=True).astype(k.accumulate.numpy)


def _scatter(k: ScatterKernel, buffers, arrays) -> None:
    at = Evaluator(buffers, arrays, k.points + k.axes)
    value = at.whole(k.value)
    target = buffers[k.target]
    flat = np.zeros(value.shape, np.int64)
    for i, n, s in zip(k.index, target.shape, target.strides, strict=True):
        flat = flat + (at.index(i) if isinstance(i, Affine) else np.clip(at.value(i), 0, n - 1)) * s
    np.add.at(arrays[k.target], flat.reshape(-1), value.reshape(-1))


# -- buffers ------------------------------------------------------------------------------------------


def ordered(name, dtype, shape, order, access="r") -> compute.Buffer:
    """Return a buffer whose dimensions lie in memory in an order, the last one fastest."""
    strides = [0] * len(shape)
    n = 1
    for d in reversed(order):
        strides[d] = n
        n *= max(1, shape[d])
    return compute.Buffer(name, dtype, tuple(shape), tuple(strides), access)


def dense(name, dtype, shape, access="r") -> compute.Buffer:
    """Return a row-major buffer."""
    return ordered(name, dtype, shape, range(len(shape)), access)


# -- running what was lowered ---------------------------------------------------------------------------


def fill(kernel: compute.Kernel, seed: int = 0) -> dict[str, np.ndarray]:
    """Return flat arrays of values for every buffer."""
    rng = np.random.default_rng(seed)
    out = {}
    for b in kernel.buffers:
        dtype = b.dtype.numpy
        if b.dtype.is_float:
            out[b.name] = rng.normal(size=b.span).astype(dtype)
        elif b.dtype.name == "bool":
            out[b.name] = rng.random(b.span) < 0.5
        else:
            out[b.name] = rng.integers(0, 7, b.span).astype(dtype)
    return out


def run_native(lowered, target, arrays, *, threads=1, checked=True) -> dict[str, np.ndarray]:
    """Run the launches natively on copies of the arrays."""
    from tapeout.codegen import cpu
    from tapeout.runtime import jit

    out = {n: _aligned(a) for n, a in arrays.items()}
    for s in lowered.scratch:
        poison = np.full(s.size, np.nan if s.dtype.is_float else 77).astype(s.dtype.numpy)
        out[s.name] = _aligned(poison)
    kernels = {call.kernel.name: call.kernel for call in lowered.launches}
    code = cpu.compile_objects(kernels, target, checked=checked)
    for call in lowered.launches:
        given = _given(call, out)
        jit.run_kernel(call.kernel, code[call.kernel.name], given, threads=threads, checked=checked)
    return {n: out[n] for n in arrays}


def run_oracle(lowered, arrays, seed=None) -> dict[str, np.ndarray]:
    """Run the launches in the oracle of level L on copies of the arrays."""
    from tapeout.oracle import kernel as oracle

    out = {n: a.copy() for n, a in arrays.items()}
    for s in lowered.scratch:
        out[s.name] = np.full(s.size, np.nan if s.dtype.is_float else 77).astype(s.dtype.numpy)
    for call in lowered.launches:
        given = _given(call, out)
        oracle.run(call.kernel, given, seed)
    return {n: out[n] for n in arrays}


def _given(call, arrays) -> dict[str, np.ndarray]:
    """Return the arrays by param; one that is read as another type is a view."""
    given = {}
    for p, name in zip(call.kernel.params, call.args, strict=True):
        array, dtype = arrays[name], p.dtype.numpy
        if array.dtype != dtype:
            array = array.view(np.uint8)[: p.size * dtype.itemsize].view(dtype)
        given[p.name] = array
    return given


def _aligned(a: np.ndarray) -> np.ndarray:
    raw = np.zeros(a.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    out = raw[start : start + a.nbytes].view(a.dtype)
    out[:] = a
    return out


def check(
    kernel, target, kind="reduction", *, arrays=None, oracle=True, native=True, factor=1.0, on=None
):
    """Lower, run and compare with the evaluation of level T; return what was lowered.

    `on`: the machine to run natively on, if not the target; LLVM splits vectors that it lacks.
    """
    from tapeout.kernel.verify import verify_kernel

    lowered = lower(kernel, target)
    for call in lowered.launches:
        verify_kernel(call.kernel)
    arrays = arrays or fill(kernel)
    want = evaluate(kernel, arrays)
    got = []
    if oracle:
        got.append(run_oracle(lowered, arrays))
    if native:
        got.append(run_native(lowered, on or target, arrays))
        other = run_native(lowered, on or target, arrays, threads=3)
        for b in kernel.buffers:
            np.testing.assert_array_equal(got[-1][b.name], other[b.name])
    for result in got:
        for b in kernel.buffers:
            if "w" in b.access:
                reason = "long sums of mixed sign" if factor != 1.0 else ""
                close(result[b.name], want[b.name], kind, factor=factor, reason=reason)
    return lowered
