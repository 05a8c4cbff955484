"""A small program by hand: scale an input, check it, update a variable in place, sum."""

from tapeout.ir.dtype import DType, bool_, f32
from tapeout.ir.type import TensorType
from tapeout.kernel.program import Buffer, Check, Launch, Layout, Program, Slot, Space
from tapeout.support.loc import UNKNOWN
from tests.native import const, kernel, load, loop, mul, op, param, splat, store, var

SIZE = 4096
LIMIT = 100.0


def buffer(name: str, size: int | None, space: Space, offset: int, dtype: DType = f32) -> Buffer:
    shape = () if size is None else (size,)
    return Buffer(name, TensorType(dtype, shape), tuple(range(len(shape))), space, offset)


def launch(name: str, *args: str, label: str = "", work: int = 10**6) -> Launch:
    return Launch(name, args, UNKNOWN, label, flops=work, bytes=work)


def _rows(name, params, value, into):
    at = mul(var("i"), 16)
    body = [store(into, at, value(at))]
    return kernel(params, loop("i", 0, SIZE // 16, body, kind="grid"), name=name)


def sample_kernels():
    def vector(name, at):
        return load(name, at, f32, 16)

    return [
        _rows(
            "k_scale",
            [param("x", f32, SIZE), param("c", f32, 1), param("o", f32, SIZE, "w")],
            lambda at: op("mul", vector("x", at), splat(load("c", 0), 16)),
            "o",
        ),
        kernel(
            [param("o", f32, SIZE), param("bad", bool_, 1, "w")],
            store("bad", 0, op("gt", load("o", 5), const(LIMIT, f32))),
            name="k_test",
        ),
        _rows(
            "k_update",
            [param("w", f32, SIZE, "rw"), param("g", f32, SIZE)],
            lambda at: op("sub", vector("w", at), vector("g", at)),
            "w",
        ),
        _rows(
            "k_sum",
            [param("a", f32, SIZE), param("b", f32, SIZE), param("o", f32, SIZE, "w")],
            lambda at: op("add", vector("a", at), vector("b", at)),
            "o",
        ),
    ]


def sample_program(work: int = 10**6) -> Program:
    """o = 3 * x; stop with code 7 if o[5] > LIMIT; w -= o; t = w + o. `work` is what each launch is said to cost."""
    import numpy as np

    size = SIZE * 4
    layout = Layout((Slot("w", TensorType(f32, (SIZE,)), "parameter", 0),), size)
    buffers = [
        buffer("x", SIZE, "input", 0),
        buffer("c", 1, "constant", 64),
        buffer("w", SIZE, "variable", 0),
        buffer("o", SIZE, "output", size),
        buffer("t", SIZE, "output", 2 * size),
        buffer("bad", None, "activation", 3 * size, bool_),
    ]
    items = (
        launch("k_scale", "x", "c", "o", label="scale", work=work),
        launch("k_test", "o", "bad", label="test", work=1),
        Check("bad", 7, "an entry is too large"),
        launch("k_update", "w", "o", label="update", work=work),
        launch("k_sum", "w", "o", "t", label="sum", work=work),
    )
    return Program(
        "step",
        ("x",),
        {"o": "o", "t": "t", "w": "w", "x": "x", "c": "c"},
        {b.name: b for b in buffers},
        items,
        {k.name: k for k in sample_kernels()},
        layout,
        3 * size + 64,
        bytes(64) + np.array([3.0], np.float32).tobytes(),
        {"x": TensorType(f32, (SIZE,))},
    )
