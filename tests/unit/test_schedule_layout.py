"""Where variables live."""

from itertools import pairwise

import numpy as np

from tapeout.ir.dtype import f32, f64, i64
from tapeout.ir.graph import Variable
from tapeout.ir.type import TensorType
from tapeout.schedule.layout import plan_variables


def _variable(name: str, *shape: int, kind: str = "parameter", dtype=f32, trainable=True):
    return Variable(name, TensorType(dtype, shape), kind, trainable)


def _offsets(*variables: Variable) -> dict[str, int]:
    layout = plan_variables(variables)
    ends = sorted((s.offset, s.offset + s.type.bytes) for s in layout.slots)
    assert all(a[1] <= b[0] for a, b in pairwise(ends)), "slots overlap"
    assert all(s.offset % 64 == 0 for s in layout.slots)
    assert layout.bytes >= max((e for _, e in ends), default=0)
    assert layout.bytes % 64 == 0
    return {s.name: s.offset for s in layout.slots}


def test_nothing_takes_nothing() -> None:
    assert plan_variables([]).bytes == 0


def test_trainable_parameters_come_first_in_order_of_declaration() -> None:
    at = _offsets(
        _variable("lr", kind="hyper", dtype=f64),
        _variable("step", kind="state", dtype=i64),
        _variable("frozen", 3, trainable=False),
        _variable("w", 5, 3),
        _variable("b", 3),
    )
    assert list(at) == ["w", "b", "frozen", "step", "lr"]
    assert (at["w"], at["b"]) == (0, 64)


def test_moments_lie_like_their_parameters() -> None:
    names = ("fc1.weight", "fc1.bias", "head/fc2.weight")
    shapes = ((7, 3), (7,), (2, 7))
    parameters = [_variable(n, *s) for n, s in zip(names, shapes, strict=True)]
    # Declared per parameter, m and v in turn, as an optimiser does.
    states = [
        _variable(f"{moment}/{n}", *s, kind="state")
        for n, s in zip(names, shapes, strict=True)
        for moment in ("adam.m", "adam.v")
    ]
    at = _offsets(*parameters, *states)
    for moment in ("adam.m", "adam.v"):
        start = at[f"{moment}/fc1.weight"]
        assert [at[f"{moment}/{n}"] - start for n in names] == [at[n] for n in names]
    assert at["adam.v/fc1.weight"] >= at["adam.m/head/fc2.weight"] + np.prod(shapes[2]) * 4


def test_a_block_keeps_the_distances_when_some_states_are_missing() -> None:
    states = [_variable("m/b", 4, kind="state"), _variable("s", 1, kind="state")]
    at = _offsets(_variable("a", 100), _variable("b", 4), *states)
    parameters_end = at["b"] + 64
    assert at["m/b"] == parameters_end + at["b"]
    assert at["s"] == at["m/b"] + 64


def test_a_state_of_another_type_mirrors_nothing() -> None:
    at = _offsets(
        _variable("w", 4), _variable("count/w", 4, kind="state", dtype=i64), _variable("m/w", 4, kind="state")
    )  # fmt: skip
    assert at["m/w"] < at["count/w"], "others come after the blocks"
