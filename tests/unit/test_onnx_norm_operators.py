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
