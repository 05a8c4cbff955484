"""More operators against onnxruntime, or against onnx's own reference where onnxruntime has none: a model of one node each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from tests.onnx_models import Array, one_node, run, run_elsewhere
from tests.tolerances import close
from tests.unit.test_onnx_operators import Case, ints, numbers, scalar

F32, I64 = np.float32, np.int64


def rows(*numbers: tuple[int, ...]) -> Array:
    return np.array(numbers, I64)


def scatters() -> Iterator[Case]:
    at = np.array([[0, 2, -1], [1, 1, 0]], I64)
    yield Case("GatherND", 11, ((3, 4, 2), rows((0, 1), (-1, 2), (2, -4))), kind="exact")
    yield Case(
        "GatherND",
        12,
        ((3, 4, 2), np.array([[[1], [0]], [[3], [-1]], [[2], [2]]])),
        {"batch_dims": 1},
        kind="exact",
    )
    yield Case("GatherND", 13, ((2, 3), rows((0,), (1,), (1,))), kind="exact")
    for op in ("Scatter", "ScatterElements"):
        yield Case(
            op,
            9 if op == "Scatter" else 11,
            ((3, 3), rows((1, 0, 2), (0, 2, 1)), (2, 3)),
            kind="exact",
        )
    for how in ("none", "add", "mul", "max", "min"):
        places = at if how != "none" else rows((0, 2, 1), (1, 2, 0))
        opset = 16 if how in ("none", "add", "mul") else 18
        k = "reduction"
        yield Case(
            "ScatterElements",
            opset,
            ((3, 4), places, (2, 3)),
            {"axis": 1, "reduction": how},
            kind=k,
        )
        nd = rows((0, 1), (2, -1)) if how == "none" else rows((0, 1), (0, 1), (2, -1))
        yield Case("ScatterND", opset, ((3, 4, 2), nd, (len(nd), 2)), {"reduction": how}, kind=k)
    yield Case("ScatterND", 11, ((4, 2), rows((3,), (0,)), (2, 2)), kind="exact")
    yield Case(
        "ScatterElements",
        18,
        (numbers(np.int32, 3, 3), rows((0, 0, 0)), numbers(np.int32, 1, 3)),
        {"reduction": "add"},
        kind="exact",
    )
    for flags in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
        yield Case("CumProd", 26, ((3, 4), scalar(1)), flags, kind="reduction", stored=(1,))
    yield Case("CumProd", 26, (numbers(np.int32, 3, 4), scalar(-2)), kind="exact", stored=(1,))


def resizes() -> Iterator[Case]:
    T = "network"  # onnxruntime computes places in f32
    none = None
    up = np.array([1, 1, 2, 1.5], F32)
    yield Case("Upsample", 7, ((1, 2, 3, 4),), {"scales": [1.0, 1.0, 2.0, 3.0]}, kind="exact")
    yield Case("Upsample", 9, ((1, 2, 3, 4), up), {"mode": "linear"}, kind=T, stored=(1,))
    for scales in (up, np.array([1, 1, 0.5, 0.75], F32)):
        yield Case("Resize", 10, ((1, 2, 4, 8), scales), kind="exact", stored=(1,))
        yield Case("Resize", 10, ((1, 2, 4, 8), scales), {"mode": "linear"}, kind=T, stored=(1,))
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        how = {"coordinate_transformation_mode": coordinates}
        for mode in ("linear", "cubic"):
            for sizes in (ints(2, 2, 7, 9), ints(2, 2, 2, 3), ints(2, 2, 1, 4)):
                x = ((2, 2, 4, 6), none, none, sizes)
                yield Case("Resize", 13, x, {**how, "mode": mode}, kind=T, stored=(3,))
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
            x = ((1, 1, 4, 6), none, np.array([1, 1, 1.5, 2], F32))
            more = {**how, "nearest_mode": rounding}
            yield Case("Resize", 11, x, more, kind="exact", stored=(2,))
    crop = {
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "mode": "linear",
        "extrapolation_value": 7.0,
    }
    region = np.array([0, 0, 0.2, -0.3, 1, 1, 0.8, 1.2], F32)
    yield Case(
        "Resize", 13, ((1, 1, 5, 6), region, none, ints(1, 1, 4, 7)), crop, kind=T, stored=(1, 3)
    )
    shrunk = ((1, 2, 9, 8), none, np.array([1, 1, 0.5, 0.3], F32))
    for mode in ("linear", "cubic"):
        yield Case("Resize", 18, shrunk, {"mode": mode, "antialias": 1}, kind=T, stored=(2,))
    yield Case(
        "Resize",
        18,
        ((1, 1, 4, 5), none, none, ints(6, 10)),
        {"axes": [3, 2]},
        kind="exact",
        stored=(3,),
    )
    yield Case(
        "Resize",
        13,
        ((1, 1, 5, 6), none, np.array([1, 1, 2, 2], F32)),
        {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
        kind=T,
        stored=(2,),
    )
    yield Case(
        "Resize",
        19,
        ((1, 1, 5, 6), none, none, ints(7, 7)),
        {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"},
        kind="exact",
        stored=(3,),
    )


def orders() -> Iterator[Case]:
    E = "exact"
    yield Case("TopK", 9, ((3, 5),), {"k": 2}, outputs=2, kind=E)
    yield Case("TopK", 10, ((3, 5), ints(3)), {"axis": 0}, outputs=2, kind=E, stored=(1,))
    tied = numbers(np.int32, 3, 8, low=0, high=3)
    for flags in ({}, {"largest": 0}, {"axis": 0, "largest": 0}):
        yield Case("TopK", 11, ((3, 8), ints(3)), flags, outputs=2, kind=E, stored=(1,))
        yield Case("TopK", 11, (tied, ints(2)), flags, outputs=2, kind=E, stored=(1,))


def rearranged() -> Iterator[Case]:
    E, R = "exact", "reduction"
    for axes in ({"batch_axis": 0, "time_axis": 1}, {}):
        lengths = ints(3, 1, 4) if axes else ints(2, 3, 1, 0, 3)
        yield Case("ReverseSequence", 10, ((3, 5, 2), lengths), axes, kind=E)
    for sizes in ((3, 9), (8, 4), (5, 7)):
        yield Case("CenterCropPad", 18, ((5, 7), ints(*sizes)), kind=E, stored=(1,))
    yield Case("CenterCropPad", 18, ((5, 7, 3), ints(8, 2)), {"axes": [-1, 0]}, kind=E, stored=(1,))
    yield Case("TensorScatter", 24, ((2, 3, 6, 4), (2, 3, 2, 4), ints(1, 4)), kind=E)
    yield Case(
        "TensorScatter", 24, ((2, 6, 4), (2, 3, 4), ints(4, 5)), {"mode": "circular"}, kind=E
    )
    yield Case("TensorScatter", 24, ((2, 6, 4), (2, 3, 4)), {"axis": 1}, kind=E)
    for image, block, more in (
        ((5, 5), (1, 5), {}),
        ((5, 6), (2, 3), {"strides": [2, 1], "pads": [0, 1, 1, 0]}),
        ((6, 7), (2, 2), {"dilations": [2, 3]}),
        ((4, 5, 5), (1, 5, 5), {}),
    ):
        n = len(image)
        pads, step, hole = (
            more.get("pads", [0] * 2 * n),
            more.get("strides", [1] * n),
            more.get("dilations", [1] * n),
        )
        spans = [(b - 1) * d + 1 for b, d in zip(block, hole, strict=True)]
        count = np.prod(
            [(m + pads[i] + pads[n + i] - spans[i]) // step[i] + 1 for i, m in enumerate(image)]
        )
        x = (2, 3 * int(np.prod(block)), int(count))
        yield Case("Col2Im", 18, (x, ints(*image), ints(*block)), more, kind=R, stored=(1, 2))
    chosen = np.array([False, True, True])
    for more in ({"axis": 0}, {"axis": 1}, {}):
        yield Case("Compress", 11, ((3, 4), chosen), more, kind=E, stored=(1,))
    flags = numbers(I64, 3, 4, low=0, high=2)
    yield Case("NonZero", 13, (flags,), kind=E, stored=(0,))
    for more in ({}, {"sorted": 0}, {"axis": 1}, {"axis": 0, "sorted": 0}):
        yield Case("Unique", 11, (flags,), more, outputs=4, kind=E, stored=(0,))
    for window in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        for more in ({}, {"periodic": 0}):
            yield Case(window, 17, (scalar(10),), more, kind="network", stored=(0,))
    yield Case("HannWindow", 17, (scalar(9),), {"output_datatype": 11}, kind="network", stored=(0,))


def embedded() -> Iterator[Case]:
    T = "transcendental"
    at = rows((0, 3, 1), (4, 2, 2))
    for beside in (0, 1):
        how = {"interleaved": beside}
        yield Case("RotaryEmbedding", 23, ((2, 4, 3, 8), (5, 4), (5, 4), at), how, kind=T)
        yield Case(
            "RotaryEmbedding",
            23,
            ((2, 3, 32), (2, 3, 4), (2, 3, 4)),
            {**how, "num_heads": 4},
            kind=T,
        )
        part = {**how, "rotary_embedding_dim": 4}
        yield Case("RotaryEmbedding", 23, ((2, 4, 3, 8), (5, 2), (5, 2), at), part, kind=T)
    yield Case("SwiGLU", 28, ((3, 4), (3, 4)), kind=T)
    yield Case("SwiGLU", 28, ((3, 4), (3, 4)), {"alpha": 1.7}, kind=T)


def pools() -> Iterator[Case]:
    R = "reduction"
    for p in (1, 2, 3):
        yield Case("GlobalLpPool", 7, ((2, 3, 4, 5),), {"p": p}, kind=R)
        for more in (
            {"kernel_shape": [2, 3]},
            {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]},
        ):
            yield Case("LpPool", 11, ((2, 3, 6, 7),), {**more, "p": p}, kind="transcendental")
    pooled = np.array([5, 7, 13, 15], I64).reshape(1, 1, 2, 2)
    how = {"kernel_shape": [2, 2], "strides": [2, 2]}
    yield Case("MaxUnpool", 11, ((1, 1, 2, 2), pooled), how, kind="exact")
    odd = {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}
    yield Case(
        "MaxUnpool", 9, ((1, 2, 3), np.array([[[0, 2, 4], [6, 6, 9]]], I64)), odd, kind="exact"
    )


def quantised() -> Iterator[Case]:
    E = "exact"
    one, zero = np.array(0.3, F32), np.array(7, np.uint8)
    by_axis, signed = np.array([0.1, 0.5, 2], F32), np.array([-3, 0, 9], np.int8)
    yield Case("QuantizeLinear", 10, ((3, 4), one, zero), kind=E)
    yield Case("QuantizeLinear", 13, ((2, 3, 4), by_axis, signed), {"axis": 1}, kind=E)
    yield Case(
        "QuantizeLinear",
        21,
        ((3, 4), np.array([[0.1, 0.2], [0.3, 0.1], [1, 2]], F32)),
        {"axis": 1, "block_size": 3},
        kind=E,
    )
    yield Case("QuantizeLinear", 21, ((3, 4), one), {"output_dtype": 4}, kind=E)
    yield Case(
        "DequantizeLinear", 10, (numbers(np.uint8, 3, 4, high=255), one, zero), kind="arithmetic"
    )
    yield Case(
        "DequantizeLinear",
        13,
        (numbers(np.int8, 3, 4), by_axis, signed),
        {"axis": 0},
        kind="arithmetic",
    )
    yield Case("DequantizeLinear", 10, (numbers(np.int32, 3, 4), one), kind="arithmetic")
    yield Case(
        "DequantizeLinear",
        21,
        (numbers(np.int8, 3, 5), np.array([[0.1, 0.2, 3], [0.3, 0.1, 1], [1, 2, 5]], F32)),
        {"axis": 1, "block_size": 2},
        kind="arithmetic",
    )
    yield Case("DynamicQuantizeLinear", 11, ((3, 4),), outputs=3, kind="arithmetic")
    a, b = numbers(np.uint8, 4, 3, high=255), numbers(np.uint8, 3, 5, high=255)
    yield Case("MatMulInteger", 10, (a, b, np.array(12, np.uint8), np.array(9, np.uint8)), kind=E)
    scales = (np.array(0.02, F32), zero)
    yield Case("QLinearMatMul", 10, (a, *scales, b, *scales, np.array(0.4, F32), zero), kind=E)


def diagonals() -> Iterator[Case]:
    for equation, shapes in (
        ("ii->i", ((3, 3),)),
        ("ii", ((3, 3),)),
        ("bii->bi", ((2, 3, 3),)),
        ("iij,jk->ik", ((3, 3, 4), (4, 2))),
        ("iii->i", ((3, 3, 3),)),
        ("ij,jj->i", ((2, 3), (3, 3))),
        ("...ii->...i", ((2, 2, 3, 3),)),
        ("ij,ij,ij->", ((2, 3), (2, 3), (2, 3))),
        (" i j , j k -> k i ", ((2, 3), (3, 4))),
    ):
        yield Case("Einsum", 12, shapes, {"equation": equation}, kind="contraction")


def grids() -> Iterator[Case]:
    N = "network"
    places = np.random.default_rng(8).uniform(-1.6, 1.6, (2, 3, 5, 2)).astype(F32)
    for opset, modes in (
        (16, ("bilinear", "nearest", "bicubic")),
        (20, ("linear", "nearest", "cubic")),
    ):
        for mode in modes:
            for padding in ("zeros", "border", "reflection"):
                how = {"mode": mode, "padding_mode": padding, "align_corners": opset // 20}
                yield Case("GridSample", opset, ((2, 3, 4, 6), places), how, kind=N)
    deep = np.random.default_rng(9).uniform(-1.2, 1.2, (1, 2, 2, 3, 3)).astype(F32)
    yield Case("GridSample", 20, ((1, 2, 3, 4, 5), deep), kind=N)
    for aligned in (0, 1):
        how = {"align_corners": aligned}
        yield Case("AffineGrid", 20, ((2, 2, 3), ints(2, 3, 4, 5)), how, kind=N, stored=(1,))
        yield Case("AffineGrid", 20, ((1, 3, 4), ints(1, 3, 2, 4, 5)), how, kind=N, stored=(1,))


def signals() -> Iterator[Case]:
    N = "network"  # numpy transforms in another order
    for axis, parts in ((1, 1), (2, 2), (-2, 1)):
        yield Case("DFT", 17, ((2, 6, 5, parts),), {"axis": axis}, kind=N)
    yield Case("DFT", 17, ((2, 6, 2),), {"inverse": 1}, kind=N)
    yield Case("DFT", 17, ((2, 7, 1),), {"onesided": 1}, kind=N)
    yield Case("DFT", 17, ((2, 6, 1), scalar(9)), kind=N, stored=(1,))
    yield Case("DFT", 17, ((2, 6, 2), scalar(4)), kind=N, stored=(1,))
    yield Case("DFT", 20, ((2, 100, 2), None, scalar(1)), kind=N, stored=(2,))
    yield Case("DFT", 20, ((2, 6, 1, 1), None, scalar(0)), {"onesided": 1}, kind=N, stored=(2,))
    for length in (130, 71, 256):
        yield Case("DFT", 20, ((1, length, 1),), kind=N)
    frames = (scalar(4), np.hanning(8).astype(F32), scalar(8))
    yield Case("STFT", 17, ((2, 20, 1), *frames), kind=N, stored=(1, 2, 3))
    yield Case("STFT", 17, ((1, 20, 1), frames[0], None, frames[2]), kind=N, stored=(1, 3))
    yield Case("STFT", 17, ((1, 20, 1), *frames[:2]), {"onesided": 0}, kind=N, stored=(1, 2))


def whole_convolutions() -> Iterator[Case]:
    E = "exact"
    x, w = numbers(np.uint8, 2, 3, 5, 6, high=200), numbers(np.uint8, 4, 3, 3, 2, high=200)
    how = {"pads": [1, 0, 1, 1], "strides": [2, 1]}
    yield Case("ConvInteger", 10, (x, w, np.array(7, np.uint8)), how, kind=E)
    yield Case("ConvInteger", 10, (x, w, np.array(7, np.uint8), np.array(3, np.uint8)), kind=E)
    a = (np.array(0.02, F32), np.array(12, np.uint8))
    each = (np.array([0.02, 0.01, 0.03, 0.04], F32), np.zeros(4, np.int8))
    b = numbers(np.int32, 4, low=-900, high=900)
    signed = numbers(np.int8, 4, 3, 3, 2, low=-90, high=90)
    yield Case(
        "QLinearConv",
        10,
        (x, *a, signed, *each, np.array(1.5, F32), np.array(99, np.uint8), b),
        how,
        kind=E,
    )


CASES = [
    *signals(),
    *whole_convolutions(),
    *grids(),
    *scatters(),
    *resizes(),
    *orders(),
    *rearranged(),
    *embedded(),
    *pools(),
    *quantised(),
    *diagonals(),
]


def expected(made: onnx.ModelProto, feed: dict[str, Array]) -> dict[str, Array]:
    """Run a model in onnxruntime, or in onnx's reference if it has no kernel."""
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    state = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        return run_elsewhere(made, feed)
    except (state.NotImplemented, state.Fail, state.InvalidGraph, state.InvalidArgument):
        found = ReferenceEvaluator(made).run(None, feed)
        return dict(zip((o.name for o in made.graph.output), map(np.asarray, found), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_as_elsewhere(case: Case) -> None:
    operands = case.draw()
    stored = tuple(f"x{i}" for i in case.stored)
    made = one_node(
        case.op, operands, opset=case.opset, outputs=case.outputs, stored=stored, **case.attributes
    )
    feed = {n: a for n, a in operands.items() if a is not None}
    want = expected(made, {n: a for n, a in feed.items() if n not in stored})
    values = {f"x{i}": operands[f"x{i}"] for i in case.values}
    got = run(made, feed, mode="as-exported", values=values)
    assert list(got) == list(want)
    for name, array in want.items():
        close(got[name], array, case.kind, factor=4, reason="two implementations, both in f32")
