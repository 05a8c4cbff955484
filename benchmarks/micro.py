"""Kernels by themselves: matrix products, convolutions in three passes, rows, attention, functions; against PyTorch and the ceiling.

    python benchmarks/micro.py --torch-python /path/to/python

As `benchmarks/operators.py`; where a row is about multiply-adds, its rate is also compared with what this machine was measured to do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.operators import Case, main  # noqa: E402  (after the path is set)

_SQUARES = (128, 256, 512, 1024, 2048)
_TRAINING = (
    (128, 512, 784), (128, 10, 512), (1024, 256, 1024), (1024, 1024, 256), (4096, 256, 256), (1024, 768, 256),
)  # fmt: skip
"""Rows, columns, steps."""
_LAYERS = (
    (64, 56, 3, 1), (128, 28, 3, 1), (256, 14, 3, 1), (512, 7, 3, 1), (64, 56, 1, 1), (256, 14, 1, 1), (128, 56, 3, 2),
)  # fmt: skip
"""Channels, side, kernel, stride; a batch of 4."""


def _products() -> Iterator[Case]:
    for n in _SQUARES:
        shapes, gflop = {"x": (n, n), "y": (n, n)}, 2e-9 * n**3
        yield Case(f"product {n}^3 NN", shapes, lambda t, x, y: x @ y, part="forward", gflop=gflop)
        if n < 512:
            continue
        for name, formula in (("NT", lambda t, x, y: x @ y.t()), ("TN", lambda t, x, y: x.t() @ y)):
            yield Case(f"product {n}^3 {name}", shapes, formula, part="forward", gflop=gflop)
    for m, n, k in _TRAINING:
        shapes, gflop = {"x": (m, k), "y": (n, k)}, 2e-9 * m * n * k
        name = f"product {m}x{n}x{k} NT"
        yield Case(name, shapes, lambda t, x, y: x @ y.t(), part="forward", gflop=gflop)


def _conv(kernel: int, stride: int, groups: int = 1) -> Any:
    return lambda t, x, w: t.nn.functional.conv2d(x, w, None, stride, kernel // 2, 1, groups)


def _convolutions() -> Iterator[Case]:
    for channels, side, kernel, stride in _LAYERS:
        shapes = {"x": (4, channels, side, side), "w": (channels, channels, kernel, kernel)}
        gflop = 2e-9 * 4 * channels**2 * (side // stride) ** 2 * kernel**2
        for part in ("forward", "x", "w"):
            what = {"forward": "forward", "x": "data gradient", "w": "weight gradient"}[part]
            stepped = f" stride {stride}" if stride > 1 else ""
            name = f"convolution {channels}x{side}x{side}, {kernel}x{kernel}{stepped}, {what}"
            yield Case(name, shapes, _conv(kernel, stride), part=part, gflop=gflop)
    for channels, side in ((96, 48), (144, 24), (384, 12)):
        shapes = {"x": (16, channels, side, side), "w": (channels, 1, 3, 3)}
        yield Case(f"depthwise {channels}x{side}x{side}", shapes, _conv(3, 1, channels))


def _attention(causal: bool) -> Any:
    def formula(t: Any, q: Any, k: Any, v: Any) -> Any:
        return t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return formula


def _layer_norm(t: Any, x: Any, w: Any, b: Any) -> Any:
    return t.nn.functional.layer_norm(x, (x.shape[-1],), w, b)


def _rest() -> Iterator[Case]:
    for heads, tokens, size in ((64, 128, 32), (16, 256, 64), (16, 512, 64)):
        shapes = dict.fromkeys("qkv", (1, heads, tokens, size))
        for causal in (True, False):
            mask = "causal" if causal else "full"
            yield Case(f"attention {heads}x{tokens}x{size} {mask}", shapes, _attention(causal))
    for rows, columns in ((1024, 128), (4096, 512), (128, 10)):
        x = {"x": (rows, columns)}
        norm = {**x, "w": (columns,), "b": (columns,)}
        yield Case(f"softmax {rows}x{columns}", x, lambda t, x: t.softmax(x, -1))
        yield Case(f"layer norm {rows}x{columns}", norm, _layer_norm)
    for name in ("exp", "tanh", "sigmoid", "erf", "sin"):
        formula = lambda t, x, name=name: getattr(t, name)(x)  # noqa: E731
        yield Case(f"{name} of a million", {"x": (1024, 1024)}, formula, part="forward")


CASES = (*_products(), *_convolutions(), *_rest())

if __name__ == "__main__":
    main(CASES, "micro", __file__, __doc__)
