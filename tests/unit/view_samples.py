"""Graphs and programs for the tests of the view room, made without any real operation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tapeout.ir.build import Builder
from tapeout.ir.dtype import DType, bool_, f32, i64
from tapeout.ir.graph import Graph, Value
from tapeout.ir.op import Composite, Contraction, Elementwise, Op, Pointwise, Reduction
from tapeout.ir.type import TensorType
from tapeout.kernel.loops import Kernel, Param
from tapeout.kernel.program import Buffer, Check, Launch, Layout, Program, Slot
from tapeout.support.loc import Loc


@dataclass(frozen=True, repr=False)
class Make(Op):
    """An operation without operands."""

    name: ClassVar[str] = "constant"
    shape: tuple[int, ...] = ()
    dtype: DType = f32

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.dtype, self.shape),)


class Applied(Op):
    """Mixin: whatever is read, the result has the type of the attributes."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.dtype, self.shape),)


def _op(base: type[Op], title: str) -> Callable[..., Op]:
    fields = {"shape": tuple, "dtype": DType, "pads": tuple}
    body = {"name": title, "__annotations__": fields, "shape": (), "dtype": f32, "pads": ()}
    made = dataclass(frozen=True, repr=False)(type(title, (Applied, base), body))
    return lambda type, **more: made(shape=type.shape, dtype=type.dtype, **more)


Conv, MatMul = _op(Contraction, "conv"), _op(Contraction, "dot_general")
Add, Relu, Mul = _op(Elementwise, "add"), _op(Elementwise, "relu"), _op(Elementwise, "mul")
Sum, Max = _op(Reduction, "reduce_sum"), _op(Reduction, "reduce_max")
Reshape, Pad = _op(Pointwise, "reshape"), _op(Pointwise, "pad")
Entropy = _op(Composite, "softmax_cross_entropy")


def t(*shape: int) -> TensorType:
    """f32 of a shape."""
    return TensorType(f32, shape)


def chain(length: int, *, names: bool = True) -> Graph:
    """A chain of additions, each from a source of its own."""
    b = Builder("chain")
    x = b.add_input("x", t(4))
    for i in range(length):
        (x,) = b.emit(
            Add(type=t(4)),
            x,
            loc=Loc("chain.onnx", f"block.{i // 50}/part.{i % 50}/Add" if names else ""),
        )
    b.set_output("y", x)
    return b.graph()


def training_step(layers: int = 4, n: int = 64) -> Graph:
    """A step of a small network with skip connections: forward, loss, backward, Adam-like updates."""
    b = Builder("step")
    x = b.add_input("x", t(n, 32))
    labels = b.add_input("labels", TensorType(i64, (n,)))
    one = b.emit(Make(), loc=Loc("", "loss", "loss"))[0]
    weights, saved, skips = [], [], []
    h = x
    for i in range(layers):
        w = b.add_variable(f"fc{i}.weight", t(32, 32), initial=np.zeros((32, 32), np.float32))
        bias = b.add_variable(f"fc{i}.bias", t(32), initial=np.zeros(32, np.float32))
        loc = Loc("net.onnx", f"fc{i}/Gemm")
        (z,) = b.emit(MatMul(type=t(n, 32)), h, w, loc=loc)
        (r,) = b.emit(Reshape(type=t(n, 32)), bias, loc=loc)
        (z,) = b.emit(Add(type=t(n, 32)), z, r, loc=loc)
        (a,) = b.emit(Relu(type=t(n, 32)), z, loc=Loc("net.onnx", f"act{i}/Relu"))
        if i % 2:
            (a,) = b.emit(Add(type=t(n, 32)), a, skips[-1], loc=Loc("net.onnx", f"skip{i}/Add"))
        weights.append((f"fc{i}", w, bias))
        saved.append((h, z))
        skips.append(a)
        h = a
    (loss,) = b.emit(Entropy(type=t()), h, labels, loc=Loc("", "loss", "loss"))
    (bad,) = b.emit(Max(type=TensorType(bool_)), labels, loc=Loc("", "loss", "check"))
    b.add_check(bad, "labels must be from 0 to 31")
    (g,) = b.emit(Mul(type=t(n, 32)), h, one, loc=Loc("", "loss", "backward"))
    grads: list[tuple[str, Value, Value]] = []
    for i in reversed(range(layers)):
        h, z = saved[i]
        name, w, bias = weights[i]
        back = Loc("net.onnx", f"act{i}/Relu", "backward")
        (g,) = b.emit(Mul(type=t(n, 32)), g, z, loc=back)
        back = Loc("net.onnx", f"fc{i}/Gemm", "backward")
        (dw,) = b.emit(MatMul(type=t(32, 32)), h, g, loc=back)
        (db,) = b.emit(Sum(type=t(32)), g, loc=back)
        (g,) = b.emit(MatMul(type=t(n, 32)), g, w, loc=back)
        grads += [(f"{name}.weight", w, dw), (f"{name}.bias", bias, db)]
    for name, w, d in grads:
        loc = Loc("", name, "update")
        m = b.add_variable(f"m/{name}", w.type, "state", initial=np.zeros(w.type.shape, np.float32))
        (m2,) = b.emit(Add(type=w.type), m, d, loc=loc)
        (w2,) = b.emit(Add(type=w.type), w, m2, loc=loc)
        b.set_update(name, w2)
        b.set_update(f"m/{name}", m2)
    b.set_output("loss", loss)
    return b.graph()


def program(items: int = 24) -> Program:
    """A program whose launches each read what the one before wrote."""
    buffers = {"x": Buffer("x", t(64, 32), (0, 1), "input", 0)}
    slots, at = [], 0
    for i in range(4):
        slots.append(Slot(f"fc{i}.weight", t(32, 32), "parameter", at))
        at += 4096
    for i in range(4):
        slots.append(Slot(f"m/fc{i}.weight", t(32, 32), "state", at))
        at += 4096
    launched: list[Launch | Check] = []
    kernels = {}
    half = items // 2
    for i in range(items):
        mirror = items - i if i < half else min(i + 2, items - 1)
        buffers[f"v{i}"] = Buffer(
            f"v{i}",
            t(64, 32),
            (1, 0),
            "activation",
            at + 8192 * min(i, items - i),
            i,
            max(mirror, i + 1),
        )
        symbol = f"k_{i % 3:016x}"
        kernels[symbol] = Kernel(symbol, (Param("b0", f32, 2048), Param("b1", f32, 2048, "w")), ())
        role = "forward" if i < half else "backward"
        launched.append(
            Launch(
                symbol,
                (f"v{i - 1}" if i else "x", f"v{i}"),
                Loc("net.onnx", f"fc{i}/Gemm", role),
                f"dot+bias fc{i}/Gemm",
                131072 * (i + 1),
                16384,
            )
        )
    launched.insert(half, Check("v0", 1, "labels must be from 0 to 31"))
    arena = at + 8192 * (half + 1)
    return Program(
        "step",
        ("x",),
        {"loss": "v3"},
        buffers,
        tuple(launched),
        kernels,
        Layout(tuple(slots), at),
        arena,
    )
