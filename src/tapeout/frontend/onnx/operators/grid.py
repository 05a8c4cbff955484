"""Images read at places that are data, and the grids of affine maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.registry import op
from tapeout.ops.composite.grid import grid_sample

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym

_PADDING = ("zeros", "border", "reflection")


@op("GridSample", since=16)
def grid_sample_older(call: Call, x: Sym, grid: Sym) -> Sym:
    mode = call.choice("mode", ("bilinear", "nearest", "bicubic"), "bilinear")
    return _sample(call, x, grid, mode.removeprefix("bi"))


@op("GridSample", since=20)
def grid_sample_(call: Call, x: Sym, grid: Sym) -> Sym:
    return _sample(call, x, grid, call.choice("mode", ("linear", "nearest", "cubic"), "linear"))


def _sample(call: Call, x: Sym, grid: Sym, mode: str) -> Sym:
    padding = call.choice("padding_mode", _PADDING, "zeros")
    call.require(min(x.shape[2:], default=0) > 0, f"{x.type} has nothing to read")
    aligned = call.flag("align_corners")
    return grid_sample(x, grid, mode, padding, align_corners=aligned)


@op("AffineGrid", since=20, note="size: known at import")
def affine_grid(call: Call, theta: Sym, size: Sym) -> Sym:
    sizes = call.numbers(size, "the size")
    n = len(sizes) - 2
    fits = n in (2, 3) and theta.shape == (sizes[0], n, n + 1)
    call.require(fits, f"theta is {theta.type} for the size {list(map(int, sizes))}")
    aligned = call.flag("align_corners")
    lines = [_line(int(m), aligned=aligned) for m in sizes[2:]]
    places = np.meshgrid(*lines, indexing="ij")
    base = np.stack([*reversed(places), np.ones_like(places[0])], -1).reshape(-1, n + 1)
    table = call.constant(base.astype(theta.dtype.numpy))
    grid = theta.dot_general(table, contract=((2,), (1,))).transpose([0, 2, 1])
    return grid.reshape([sizes[0], *sizes[2:], n])


def _line(n: int, *, aligned: bool) -> Array:
    """Return where the elements of an axis stand between -1 and 1."""
    if aligned:
        return np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(n)
    return (2 * np.arange(n) + 1) / max(n, 1) - 1
