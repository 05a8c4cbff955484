"""Fourier transforms of signals, whose last dimension holds real and imaginary parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import f32
from tapeout.ops.composite.fourier import fourier

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym


@op("DFT", since=17, note="dft_length: known at import")
def transform_attribute(call: Call, x: Sym, length: Sym | None = None) -> Sym:
    return _transform(call, x, length, call.integer("axis", 1))


@op("DFT", since=20, note="axis: known at import")
def transform(call: Call, x: Sym, length: Sym | None = None, axis: Sym | None = None) -> Sym:
    at = -2 if axis is None else int(call.scalar(axis, "the axis"))
    return _transform(call, x, length, at)


def _transform(call: Call, x: Sym, length: Sym | None, axis: int) -> Sym:
    call.require(
        x.rank >= 2 and x.shape[-1] in (1, 2), f"the last dimension of {x.type} is no pair"
    )
    at = call.axis(axis, x.rank)
    call.require(at < x.rank - 1, f"axis {axis} is that of the parts")
    inverse, half = call.flag("inverse"), call.flag("onesided")
    whole = half and inverse
    call.require(not whole or x.shape[-1] == 2, "an inverse of one side needs both parts")
    call.require(not half or inverse or x.shape[-1] == 1, "one side needs a real signal")
    n = int(x.shape[at])
    if length is not None:
        size = int(call.scalar(length, "the length"))
    else:
        size = 2 * (n - 1) if whole else n
    call.require(size > 0, f"the length is {size}")
    order = [*(d for d in range(x.rank - 1) if d != at), at]
    parts = [_part(x, i).transpose(order) for i in range(int(x.shape[-1]))]
    kept = size // 2 + 1 if half else size
    parts = [_fitted(p, kept if whole else size) for p in parts]
    if whole:
        parts = [_mirrored(p, size, sign) for p, sign in zip(parts, (1, -1), strict=True)]
    re, im = fourier(parts[0], parts[1] if len(parts) > 1 else None, inverse=inverse)
    made = [re] if whole else [re, im]
    made = [p[..., :kept] if half and not whole else p for p in made]
    back = [order.index(d) for d in range(x.rank - 1)]
    return _joined([p.transpose(back) for p in made]).cast(x.dtype)


def _part(x: Sym, i: int) -> Sym:
    """Return the real or the imaginary part, in f32 at least."""
    part = x[..., i]
    return part.cast(f32) if part.dtype.bits == 16 else part


def _fitted(x: Sym, size: int) -> Sym:
    """Return a line cut or filled with zeros to a length."""
    n = int(x.shape[-1])
    if n == size:
        return x
    return x[..., :size] if n > size else x.pad([0] * x.rank, [0] * (x.rank - 1) + [size - n])


def _mirrored(x: Sym, size: int, sign: int) -> Sym:
    """Return both sides of a spectrum of which one is known."""
    rest = x[..., 1 : size - size // 2].reverse([x.rank - 1])
    return x.concat([rest if sign > 0 else -rest], x.rank - 1) if rest.shape[-1] else x


def _joined(parts: list[Sym]) -> Sym:
    last = parts[0].rank
    first, *rest = [p.expand_dims([last]) for p in parts]
    return first.concat(rest, last) if rest else first


@op("STFT", since=17, note="frame_step, frame_length: known at import")
def short_time(
    call: Call, x: Sym, frame_step: Sym, window: Sym | None = None, frame_length: Sym | None = None
) -> Sym:
    call.require(x.rank == 3 and x.shape[2] in (1, 2), f"[batch, length, parts], got {x.type}")
    step = int(call.scalar(frame_step, "the step"))
    size = int(x.shape[1])
    if frame_length is not None:
        size = int(call.scalar(frame_length, "the length of a frame"))
    elif window is not None:
        size = int(window.shape[0])
    call.require(
        0 < size <= x.shape[1] and step > 0, f"frames of {size}, {step} apart, of {x.type}"
    )
    fits = window is None or window.shape == (size,)
    call.require(fits, f"the window does not fit frames of {size}")
    half = call.flag("onesided", default=True)
    call.require(not half or x.shape[2] == 1, "one side needs a real signal")
    frames = []
    for i in range(int(x.shape[2])):
        part = _part(x, i)
        frame = part.windows([1], [size], [step])
        frames.append(frame if window is None else frame * window.cast(frame.dtype))
    re, im = fourier(frames[0], frames[1] if len(frames) > 1 else None)
    kept = size // 2 + 1 if half else size
    return _joined([re[..., :kept], im[..., :kept]]).cast(x.dtype)
