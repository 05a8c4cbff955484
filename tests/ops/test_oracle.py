"""The oracle of graphs: order, checks, updates, and what it refuses."""

import numpy as np
import pytest

from tapeout.ir.build import Builder
from tapeout.ir.dtype import f64, i64
from tapeout.ir.op import Op, Unary
from tapeout.ir.type import TensorType
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as graph_oracle
from tapeout.support.errors import DataError, VerifyError

X = np.array([1.0, 2.0])


def counter() -> Builder:
    """Return a builder of `y = x * n`, `n := n + 1`, which fails when `x` holds a negative number."""
    b = Builder("counter")
    x = Sym(b, b.add_input("x", TensorType(f64, (2,))))
    n = Sym(b, b.add_variable("n", TensorType(f64), "state", initial=np.array(3.0)))
    b.set_output("y", (x * n).value)
    b.set_update("n", (n + 1).value)
    b.add_check((x < 0).any().value, "x is negative")
    return b


def test_outputs_and_updates() -> None:
    found = graph_oracle.run(counter().graph(), {"x": X})
    np.testing.assert_array_equal(found.outputs["y"], [3.0, 6.0])
    assert found.updates == {"n": 4.0} and found.failed == []
    found = graph_oracle.run(counter().graph(), {"x": X}, {"n": np.array(5.0)})
    assert found.updates == {"n": 6.0}


def test_a_check_that_fires_leaves_nothing() -> None:
    found = graph_oracle.run(counter().graph(), {"x": -X})
    assert found == graph_oracle.Result({}, {}, ["x is negative"])


def test_a_check_comes_before_what_it_guards() -> None:
    b = Builder("guarded")
    at = Sym(b, b.add_input("at", TensorType(i64, (1,))))
    y = at.constant(X).take(at, 0)
    b.set_output("y", y.value)
    bad, message = y.value.node.op.precondition((at.constant(X), at))
    b.add_check(bad.value, message)
    assert graph_oracle.run(b.graph(), {"at": np.array([7])}).failed == [message]
    assert graph_oracle.run(b.graph(), {"at": np.array([-1])}).outputs["y"] == [2.0]


def test_a_result_may_be_an_input_or_be_named_twice() -> None:
    b = Builder("names")
    x = Sym(b, b.add_input("x", TensorType(f64, (2,))))
    y = x.exp()
    for name, value in (("a", x), ("b", y), ("c", y), ("d", y + x)):
        b.set_output(name, value.value)
    found = graph_oracle.run(b.graph(), {"x": X}).outputs
    assert list(found) == ["a", "b", "c", "d"] and found["b"] is found["c"]


def test_a_long_chain() -> None:
    b = Builder("chain")
    x = Sym(b, b.add_input("x", TensorType(f64)))
    for _ in range(20_000):
        x = -x
    b.set_output("y", x.value)
    assert graph_oracle.run(b.graph(), {"x": np.array(1.0)}).outputs["y"] == 1.0


REFUSED = [
    ({}, {}, "input 'x' is missing; it is f64"),
    ({"x": X, "z": X}, {}, "no input is called 'z'"),
    ({"x": X[:1]}, {}, "input 'x' is f64.1., expected f64.2."),
    ({"x": X.astype(np.float32)}, {}, "input 'x' is f32"),
    ({"x": [1.0, 2.0]}, {}, "an array is expected, got list"),
    ({"x": X}, {"m": X}, "no variable is called 'm'"),
    ({"x": X}, {"n": X}, "variable 'n' is f64.2."),
]


@pytest.mark.parametrize(("inputs", "variables", "message"), REFUSED, ids=[m for *_, m in REFUSED])
def test_data_that_do_not_fit(inputs: dict, variables: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        graph_oracle.run(counter().graph(), inputs, variables)


def test_a_variable_without_value() -> None:
    b = Builder("empty")
    b.set_output("y", b.add_variable("n", TensorType(f64)))
    with pytest.raises(DataError, match="variable 'n' has no value"):
        graph_oracle.run(b.graph(), {})


def test_a_reference_of_the_wrong_type_is_found() -> None:
    class Wrong(Unary):
        """Says f64 and gives f32."""

        name = "wrong"

        def reference(self, *arrays: np.ndarray) -> np.ndarray:
            return arrays[0].astype(np.float32)

    b = Builder("wrong")
    op: Op = Wrong()
    (y,) = b.emit(op, b.add_input("x", TensorType(f64, (2,))))
    b.set_output("y", y)
    with pytest.raises(VerifyError, match=r"wrong: its type is f64.2., its reference gives f32.2."):
        graph_oracle.run(b.graph(), {"x": X})
