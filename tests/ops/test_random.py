"""Random bits: known answers, statistics, and that nothing but seed, step, stream and place matters."""

import numpy as np
import pytest

from tapeout.ir.build import Builder
from tapeout.ir.dtype import BY_NAME, i64
from tapeout.ir.type import TensorType
from tapeout.ops.random import RandomBits, bernoulli, uniform
from tapeout.ops.sym import Sym, random_bits
from tapeout.oracle import graph as graph_oracle


def bits(shape: tuple[int, ...], stream: int = 0, seed: int = 0, step: int = 0) -> np.ndarray:
    return RandomBits(shape=shape, stream=stream).reference(np.int64(seed), np.int64(step))


def test_known_answers() -> None:
    """The vectors published with the generator, for a counter and key of zeros and of the digits of pi."""
    assert [hex(v) for v in bits((4,))] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
    # A block number of 2**63 cannot be reached, so the vector is checked through the rounds alone.
    from tapeout.ops.random import _philox
    from tests.ops.lanes import Lanes

    s = Lanes([])
    words = [s.const(v, BY_NAME["u32"]) for v in pi]
    found = _philox(s, tuple(words[:4]), tuple(words[4:]))
    assert [int(w[0]) for w in found] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_all_but_the_place_changes_every_word() -> None:
    base = bits((64,), 1, 2, 3)
    others = [
        bits((64,), 2, 2, 3),
        bits((64,), 1, 3, 3),
        bits((64,), 1, 2, 4),
        bits((64,), 1, 2 + (1 << 40), 3),
    ]
    for other in others:
        assert (base == other).mean() < 0.05


def test_a_prefix_does_not_depend_on_the_shape() -> None:
    assert (bits((3, 5)).ravel() == bits((100,))[:15]).all()


def run(make: object) -> np.ndarray:
    b = Builder("random")
    seed, step = (Sym(b, b.add_input(n, TensorType(i64))) for n in ("seed", "step"))
    b.set_output("y", make(random_bits(seed, step, 7, (200, 500))).value)
    return graph_oracle.run(b.graph(), {"seed": np.array(5), "step": np.array(9)}).outputs["y"]


@pytest.mark.parametrize("name", ["f16", "bf16", "f32", "f64"])
def test_uniform(name: str) -> None:
    dtype = BY_NAME[name]
    y = run(lambda b: uniform(b, dtype))
    assert y.dtype == dtype.numpy
    wide = y.astype(np.float64)
    assert wide.min() >= 0 and wide.max() < 1
    step = 2.0 ** -{"f16": 11, "bf16": 8, "f32": 24, "f64": 32}[name]
    assert abs(wide.mean() + step / 2 - 0.5) < 4e-3
    assert abs(wide.var() - 1 / 12) < 2e-3
    counts = np.histogram(wide, 16, (0, 1))[0]
    assert ((counts - 6250) ** 2 / 6250).sum() < 45  # chi-squared with 15 degrees, p about 1e-4


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.25, 0.5, 0.9, 1.0])
def test_bernoulli(p: float) -> None:
    y = run(lambda b: bernoulli(b, p))
    assert y.dtype == bool
    assert abs(y.mean() - p) < 6e-3
    if p in (0.0, 1.0):
        assert (y == bool(p)).all()
