"""Layers of the builder: what they refuse, and what PyTorch has no module for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tapeout
from tapeout import nn
from tapeout.ops.sym import Sym

ERRORS: dict[str, tuple[Callable[[Sym], object], str]] = {
    "kernel of another rank": (lambda x: nn.conv1d(x, 4, 3, name="c"), "1 dimensions for 2"),
    "groups that do not part": (
        lambda x: nn.conv2d(x, 4, 3, name="c", groups=3),
        "3 groups do not",
    ),
    "same with strides": (
        lambda x: nn.conv2d(x, 4, 3, name="c", padding="same", strides=2),
        "no meaning with strides",
    ),
    "unknown padding": (
        lambda x: nn.conv2d(x, 4, 3, name="c", padding="full"),
        "'same' or 'valid'",
    ),
    "strides of another count": (
        lambda x: nn.conv2d(x, 4, 3, name="c", strides=(1, 2, 3)),
        "one number or 2",
    ),
    "output padding": (
        lambda x: nn.conv_transpose2d(x, 4, 3, name="c", output_padding=1),
        "less than stride 1",
    ),
    "pool padding": (lambda x: nn.max_pool2d(x, 2, padding=2), "more than half"),
    "share": (lambda x: nn.dropout(x, 1.5, name="d"), "expected 0..1"),
    "axes of a norm": (lambda x: nn.layer_norm(x, 1, name="n"), "not the last ones"),
    "groups of a norm": (lambda x: nn.group_norm(x, 3, name="n"), "3 groups do not divide"),
    "a name for parameters": (lambda x: nn.instance_norm(x, affine=True), "a name is needed"),
    "floats as indices": (lambda x: nn.embedding(x, 5, 3, name="e"), "indices are f32"),
    "mode of padding": (lambda x: nn.pad(x, [1, 1], "mirror"), "expected constant, reflect"),
    "too much reflection": (lambda x: nn.pad(x, [8, 0], "reflect"), "8 elements of axis 3"),
    "scale and size": (lambda x: nn.upsample(x, 2, size=4), "either scale or size"),
    "mode of resizing": (lambda x: nn.upsample(x, 2, mode="area"), "nearest, linear or cubic"),
    "shuffle": (lambda x: nn.pixel_shuffle(x, 3), "do not part by 3"),
    "halves": (lambda x: nn.glu(x[:, :, :, :7]), "does not part in two halves"),
    "heads": (lambda x: nn.multi_head_attention(x[0], 3, name="a"), "3 heads"),
    "one name twice": (
        lambda x: (nn.linear(x, 2, name="fc"), nn.linear(x, 2, name="fc")),
        "two inputs or variables are called 'fc.weight'",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_refused(name: str) -> None:
    layer, message = ERRORS[name]
    with tapeout.Builder("refused") as g:
        x = g.input("x", (2, 4, 8, 8))
        with pytest.raises(tapeout.TapeoutError, match=message):
            layer(x)


def test_groups_of_heads(rng: np.random.Generator) -> None:
    """Keys and values of two heads serve four: as attention with the heads repeated."""
    with tapeout.Builder("grouped") as g:
        x = g.input("x", ("N", 5, 16))
        g.output("y", nn.multi_head_attention(x, 4, kv_heads=2, causal=True, name="a"))
    model = g.graph()
    sizes = {n.removeprefix("a."): v.type.shape for n, v in model.parameters.items()}
    assert sizes == {
        "q_proj_weight": (16, 16),
        "k_proj_weight": (8, 16),
        "v_proj_weight": (8, 16),
        "in_proj_bias": (32,),
        "out_proj.weight": (16, 16),
        "out_proj.bias": (16,),
    }
    x = rng.standard_normal((3, 5, 16)).astype(np.float32)
    w = {n.removeprefix("a."): v.initial for n, v in model.parameters.items()}

    def heads(projected: np.ndarray) -> np.ndarray:
        return projected.reshape(3, 5, -1, 4).transpose(0, 2, 1, 3)

    q, k, v = (heads(x @ w[f"{n}_proj_weight"].T) for n in "qkv")
    k, v = (np.repeat(t, 2, axis=1) for t in (k, v))
    scores = q @ k.transpose(0, 1, 3, 2) / 2
    scores[:, :, np.triu(np.ones((5, 5), bool), 1)] = -np.inf
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    want = (share @ v).transpose(0, 2, 1, 3).reshape(3, 5, 16) @ w["out_proj.weight"].T
    np.testing.assert_allclose(tapeout.compile(model)(x=x)["y"], want, rtol=1e-4, atol=1e-5)


def test_dropout_of_attention(rng: np.random.Generator) -> None:
    """Weights are dropped or doubled in training, and whole in inference."""
    with tapeout.Builder("dropped") as g:
        q, k = (g.input(n, (4, 2, 6, 8)) for n in "qk")
        v = g.constant(np.tile(np.eye(6, dtype=np.float32), (4, 2, 1, 1)))
        g.output("weights", nn.attention(q, k, v, causal=True, dropout=0.5, name="a"))
    model = g.graph()
    assert model.evaluation is not None
    feed = {n: rng.standard_normal((4, 2, 6, 8)).astype(np.float32) for n in "qk"}
    whole = tapeout.compile(model.evaluation())(**feed)["weights"]
    np.testing.assert_allclose(whole.sum(-1), 1, rtol=1e-5)
    dropped = tapeout.compile(model)(**feed)["weights"]
    seen = np.broadcast_to(np.tril(np.ones((6, 6), bool)), whole.shape)
    kept = dropped > 0
    np.testing.assert_allclose(dropped[kept], 2 * whole[kept], rtol=1e-5)
    assert 0.35 < kept[seen].mean() < 0.65
    assert not np.any(dropped[~seen])


def test_initial_values() -> None:
    rng = tapeout.init.generator(0, "w")
    f32 = tapeout.f32
    shape = (64, 32, 3, 3)
    fan_in, fan_out = 32 * 9, 64 * 9
    spread = {
        "xavier_uniform": (np.sqrt(6 / (fan_in + fan_out)), np.sqrt(2 / (fan_in + fan_out))),
        "xavier_normal": (np.inf, np.sqrt(2 / (fan_in + fan_out))),
        "kaiming_uniform": (np.sqrt(6 / fan_in), np.sqrt(2 / fan_in)),
        "kaiming_normal": (np.inf, np.sqrt(2 / fan_in)),
    }
    for name, (bound, deviation) in spread.items():
        drawn = getattr(tapeout.init, name)()(shape, f32, rng)
        assert drawn.dtype == np.float32
        assert np.max(np.abs(drawn)) <= bound
        assert np.std(drawn) == pytest.approx(deviation, rel=0.03)
    with pytest.raises(tapeout.ShapeError, match=r"expected, got \[7\]"):
        tapeout.init.xavier_uniform()((7,), f32, rng)
