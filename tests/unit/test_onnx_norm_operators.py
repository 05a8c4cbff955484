"""Normalisation against onnxruntime, or onnx's own reference where onnxruntime has none: a model of one node each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from tests.onnx_models import Array, one_node, run, run_elsewhere
from tests.tolerances import close
from tests.unit.test_onnx_operators import Case, positive

F32 = np.float32


def batch_norms() -> Iterator[Case]:
    op, statistics = "BatchNormalization", ((3,), (3,), (3,), positive(3))
    for shape in ((2, 3, 4, 5), (4, 3), (2, 3, 6), (2, 3, 2, 2, 2)):
        yield Case(op, 15, (shape, *statistics), kind="reduction")
    for opset in (8, 9, 14):
        yield Case(op, opset, ((2, 3, 4), *statistics), {"epsilon": 0.1}, kind="reduction")
    yield Case(op, 15, ((2, 3, 4), *statistics), {"training_mode": 1}, 3, kind="reduction")
    more = {"training_mode": 1, "momentum": 0.3, "epsilon": 0.01}
    yield Case(op, 14, ((5, 3), *statistics), more, 3, kind="reduction")


def layer_norms() -> Iterator[Case]:
    op = "LayerNormalization"
    yield Case(op, 17, ((2, 3, 4), (4,), (4,)), kind="reduction")
    yield Case(op, 17, ((2, 3, 4), (4,)), {"epsilon": 0.1}, 3, kind="reduction")
    yield Case(op, 17, ((2, 3, 4), (3, 4), (3, 4)), {"axis": 1}, kind="reduction")
    yield Case(op, 17, ((2, 3, 4), (2, 3, 4), (2, 3, 4)), {"axis": -3}, 3, kind="reduction")


def others() -> Iterator[Case]:
    k = "reduction"
    yield Case("RMSNormalization", 23, ((2, 3, 4), (4,)), kind=k)
    yield Case("RMSNormalization", 23, ((2, 3, 4), (3, 4)), {"axis": 1, "epsilon": 0.1}, kind=k)
    for groups in (1, 2, 6):
        more = {"num_groups": groups, "epsilon": 0.01}
        yield Case("GroupNormalization", 18, ((2, 6, 3), (groups,), (groups,)), more, kind=k)
        yield Case("GroupNormalization", 21, ((2, 6, 3, 2), (6,), (6,)), more, kind=k)
    for shape in ((2, 3, 5), (2, 3, 4, 2), (2, 3, 2, 2, 2)):
        yield Case("InstanceNormalization", 13, (shape, (3,), (3,)), kind=k)
    yield Case("MeanVarianceNormalization", 9, ((2, 3, 4, 5),), kind=k)
    yield Case("MeanVarianceNormalization", 13, ((2, 3, 4),), {"axes": [0, -1]}, kind=k)


CASES = [*batch_norms(), *layer_norms(), *others()]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_as_another_runtime(case: Case) -> None:
    operands = {n: a for n, a in case.draw().items() if a is not None}
    made = one_node(case.op, operands, opset=case.opset, outputs=case.outputs, **case.attributes)
    got = run(made, operands, mode="as-exported")
    want = elsewhere(made, operands, training="training_mode" in case.attributes)
    assert list(got) == list(want)
    for name, array in want.items():
        close(got[name], array, case.kind, factor=4, reason="two implementations, both in f32")


def elsewhere(
    made: onnx.ModelProto, operands: dict[str, Array], *, training: bool
) -> dict[str, Array]:
    """Return what onnxruntime makes of a model; for training, which it does not have, what onnx itself does."""
    if not training:
        return run_elsewhere(made, operands)
    from onnx.reference import ReferenceEvaluator

    results = ReferenceEvaluator(made).run(None, operands)
    return dict(zip((o.name for o in made.graph.output), results, strict=True))


# --- types that differ -----------------------------------------------------------------------------


def test_scale_and_statistics_may_be_wider_than_the_operand() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (8, 3, 5)).astype(np.float16)
    scale, bias, mean = (rng.normal(1, 1, 3).astype(F32) for _ in range(3))
    variance = positive(3)
    operands = {"x": x, "s": scale, "b": bias, "m": mean, "v": variance}
    made = one_node("BatchNormalization", operands, opset=15, outputs=3, training_mode=1)
    y, moved, _ = run(made, operands, mode="as-exported").values()
    assert (y.dtype, moved.dtype) == (np.float16, np.float32)
    wide, at = x.astype(np.float64), (slice(None), None)
    deviation = np.sqrt(wide.var((0, 2)) + 1e-5)
    want = (wide - wide.mean((0, 2))[at]) / deviation[at] * scale[at] + bias[at]
    np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(moved, 0.9 * mean + 0.1 * wide.mean((0, 2)), rtol=1e-6)


@pytest.mark.parametrize("types", [(np.float16, F32), (F32, np.float16)])
def test_rms_has_the_type_of_its_scale(types: tuple[type, type]) -> None:
    rng = np.random.default_rng(0)
    x, scale = rng.normal(0, 1, (3, 8)).astype(types[0]), rng.normal(1, 1, 8).astype(types[1])
    made = one_node("RMSNormalization", {"x": x, "s": scale}, opset=23)
    (y,) = run(made, {"x": x, "s": scale}).values()
    assert y.dtype == types[1]
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(y, want, rtol=2e-3, atol=1e-3)
