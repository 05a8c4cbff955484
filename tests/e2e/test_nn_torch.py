"""The layers of `tapeout.nn` against PyTorch's modules of the same names: values, gradients, names, layouts and default weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tapeout
from tapeout import nn

if TYPE_CHECKING:
    import torch

    from tapeout.ops.sym import Sym

pytestmark = pytest.mark.torch

Theirs = Callable[[Any], "torch.nn.Module | Callable[[torch.Tensor], torch.Tensor]"]


@dataclass
class Case:
    """A layer of ours, and PyTorch's: a function of `torch` that gives a module or a function."""

    ours: Callable[[Sym], Sym]
    theirs: Theirs
    shape: tuple[int, ...] = (3, 4)
    prefix: str = "m."
    more: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of further operands."""
    near: float = 1e-8
    """Relative tolerance of gradients."""


def functional(name: str, **options: Any) -> Theirs:
    return lambda torch: lambda x: getattr(torch.nn.functional, name)(x, **options)


IMAGE, SIGNAL, VOLUME = (2, 4, 7, 6), (2, 4, 9), (2, 2, 5, 4, 6)

ACTIVATIONS = {
    "relu": (nn.relu, functional("relu")),
    "relu6": (lambda x: nn.relu6(x * 5), lambda t: lambda x: t.nn.functional.relu6(x * 5)),
    "leaky_relu": (nn.leaky_relu, functional("leaky_relu")),
    "leaky_relu slope": (
        lambda x: nn.leaky_relu(x, 0.2),
        functional("leaky_relu", negative_slope=0.2),
    ),
    "elu": (lambda x: nn.elu(x, 0.7), functional("elu", alpha=0.7)),
    "selu": (nn.selu, functional("selu")),
    "celu": (lambda x: nn.celu(x, 0.7), functional("celu", alpha=0.7)),
    "gelu": (nn.gelu, functional("gelu")),
    "gelu tanh": (lambda x: nn.gelu(x, "tanh"), functional("gelu", approximate="tanh")),
    "silu": (nn.silu, functional("silu")),
    "mish": (nn.mish, functional("mish")),
    "softplus": (nn.softplus, functional("softplus")),
    "softsign": (nn.softsign, functional("softsign")),
    "sigmoid": (nn.sigmoid, lambda t: t.sigmoid),
    "log_sigmoid": (nn.log_sigmoid, functional("logsigmoid")),
    "hard_sigmoid": (
        lambda x: nn.hard_sigmoid(x * 3),
        lambda t: lambda x: t.nn.functional.hardsigmoid(x * 3),
    ),
    "hard_swish": (
        lambda x: nn.hard_swish(x * 3),
        lambda t: lambda x: t.nn.functional.hardswish(x * 3),
    ),
    "hard_tanh": (nn.hard_tanh, functional("hardtanh")),
    "hard_tanh bounds": (
        lambda x: nn.hard_tanh(x, -0.3, 0.6),
        functional("hardtanh", min_val=-0.3, max_val=0.6),
    ),
    "hard_shrink": (nn.hard_shrink, functional("hardshrink")),
    "soft_shrink": (nn.soft_shrink, functional("softshrink")),
    "tanh": (nn.tanh, lambda t: t.tanh),
    "tanh_shrink": (nn.tanh_shrink, functional("tanhshrink")),
    "glu": (nn.glu, functional("glu")),
    "glu axis": (lambda x: nn.glu(x, 1), functional("glu", dim=1)),
    "softmax": (nn.softmax, functional("softmax", dim=-1)),
    "log_softmax": (lambda x: nn.log_softmax(x, 1), functional("log_softmax", dim=1)),
}

CASES = {
    # PyTorch rounds some constants of these two to f32.
    **{
        name: Case(ours, theirs, (2, 4, 6), near=1e-7 if name in ("celu", "hard_sigmoid") else 1e-8)
        for name, (ours, theirs) in ACTIVATIONS.items()
    },
    "prelu": Case(lambda x: nn.prelu(x, name="m"), lambda t: t.nn.PReLU(), IMAGE),
    "prelu channels": Case(
        lambda x: nn.prelu(x, name="m", channels=4), lambda t: t.nn.PReLU(4), IMAGE
    ),
    "linear": Case(lambda x: nn.linear(x, 5, name="m"), lambda t: t.nn.Linear(4, 5)),
    "linear without bias, deep": Case(
        lambda x: nn.linear(x, 5, name="m", bias=False),
        lambda t: t.nn.Linear(4, 5, bias=False),
        (2, 3, 4),
    ),
    "bilinear": Case(
        lambda x, y: nn.bilinear(x, y, 5, name="m"),
        lambda t: t.nn.Bilinear(4, 3, 5),
        (6, 4),
        more={"y": (6, 3)},
    ),
    "conv1d": Case(lambda x: nn.conv1d(x, 6, 3, name="m"), lambda t: t.nn.Conv1d(4, 6, 3), SIGNAL),
    "conv1d same": Case(
        lambda x: nn.conv1d(x, 6, 4, name="m", padding="same", dilations=2),
        lambda t: t.nn.Conv1d(4, 6, 4, padding="same", dilation=2),
        SIGNAL,
    ),
    "conv2d": Case(
        lambda x: nn.conv2d(x, 6, (3, 2), name="m", strides=2, padding=(1, 0)),
        lambda t: t.nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0)),
        IMAGE,
    ),
    "conv2d groups": Case(
        lambda x: nn.conv2d(x, 6, 3, name="m", groups=2, padding=2, dilations=2, bias=False),
        lambda t: t.nn.Conv2d(4, 6, 3, groups=2, padding=2, dilation=2, bias=False),
        IMAGE,
    ),
    "conv2d depthwise": Case(
        lambda x: nn.conv2d(x, 8, 3, name="m", groups=4, padding=1),
        lambda t: t.nn.Conv2d(4, 8, 3, groups=4, padding=1),
        IMAGE,
    ),
    "conv3d": Case(
        lambda x: nn.conv3d(x, 3, 2, name="m", strides=(1, 2, 2), padding="valid"),
        lambda t: t.nn.Conv3d(2, 3, 2, stride=(1, 2, 2), padding="valid"),
        VOLUME,
    ),
    "conv_transpose1d": Case(
        lambda x: nn.conv_transpose1d(x, 6, 4, name="m", strides=2, padding=1),
        lambda t: t.nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1),
        SIGNAL,
    ),
    "conv_transpose2d": Case(
        lambda x: nn.conv_transpose2d(
            x, 6, 3, name="m", strides=2, padding=1, output_padding=1, groups=2
        ),
        lambda t: t.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        IMAGE,
    ),
    "conv_transpose2d dilated": Case(
        lambda x: nn.conv_transpose2d(x, 3, (2, 3), name="m", dilations=(1, 2), bias=False),
        lambda t: t.nn.ConvTranspose2d(4, 3, (2, 3), dilation=(1, 2), bias=False),
        IMAGE,
    ),
    "conv_transpose3d": Case(
        lambda x: nn.conv_transpose3d(x, 3, 2, name="m", strides=2),
        lambda t: t.nn.ConvTranspose3d(2, 3, 2, stride=2),
        VOLUME,
    ),
    "batch_norm": Case(lambda x: nn.batch_norm(x, name="m"), lambda t: t.nn.BatchNorm2d(4), IMAGE),
    "batch_norm rows": Case(
        lambda x: nn.batch_norm(x, name="m", eps=1e-3, track=False),
        lambda t: t.nn.BatchNorm1d(4, eps=1e-3, track_running_stats=False),
        (6, 4),
    ),
    "batch_norm plain": Case(
        lambda x: nn.batch_norm(x, name="m", affine=False),
        lambda t: t.nn.BatchNorm3d(2, affine=False),
        VOLUME,
    ),
    "layer_norm": Case(
        lambda x: nn.layer_norm(x, name="m"), lambda t: t.nn.LayerNorm(6), (2, 3, 6)
    ),
    "layer_norm two axes": Case(
        lambda x: nn.layer_norm(x, (-2, -1), name="m", bias=False),
        lambda t: t.nn.LayerNorm((3, 6), bias=False),
        (2, 3, 6),
    ),
    "layer_norm plain": Case(
        lambda x: nn.layer_norm(x, name="m", affine=False),
        lambda t: t.nn.LayerNorm(6, elementwise_affine=False),
        (2, 3, 6),
    ),
    "rms_norm": Case(
        lambda x: nn.rms_norm(x, name="m", eps=1e-6), lambda t: t.nn.RMSNorm(6, eps=1e-6), (2, 3, 6)
    ),
    "group_norm": Case(
        lambda x: nn.group_norm(x, 2, name="m"), lambda t: t.nn.GroupNorm(2, 4), IMAGE
    ),
    "instance_norm": Case(nn.instance_norm, lambda t: t.nn.InstanceNorm2d(4), IMAGE),
    "instance_norm affine": Case(
        lambda x: nn.instance_norm(x, name="m", affine=True),
        lambda t: t.nn.InstanceNorm1d(4, affine=True),
        SIGNAL,
    ),
    "max_pool1d": Case(
        lambda x: nn.max_pool1d(x, 3), functional("max_pool1d", kernel_size=3), SIGNAL
    ),
    "max_pool2d": Case(
        lambda x: nn.max_pool2d(x, 3, 2, 1, ceil=True),
        functional("max_pool2d", kernel_size=3, stride=2, padding=1, ceil_mode=True),
        (2, 3, 8, 6),
    ),
    "max_pool2d dilated": Case(
        lambda x: nn.max_pool2d(x, 2, 1, dilations=2),
        functional("max_pool2d", kernel_size=2, stride=1, dilation=2),
        IMAGE,
    ),
    "max_pool3d": Case(
        lambda x: nn.max_pool3d(x, 2), functional("max_pool3d", kernel_size=2), VOLUME
    ),
    "avg_pool1d": Case(
        lambda x: nn.avg_pool1d(x, 3, 2, 1),
        functional("avg_pool1d", kernel_size=3, stride=2, padding=1),
        SIGNAL,
    ),
    "avg_pool2d ceil": Case(
        lambda x: nn.avg_pool2d(x, 3, 2, 1, ceil=True),
        functional("avg_pool2d", kernel_size=3, stride=2, padding=1, ceil_mode=True),
        (2, 3, 8, 6),
    ),
    "avg_pool2d ceil without padding": Case(
        lambda x: nn.avg_pool2d(x, 3, 2, 1, ceil=True, count_padding=False),
        functional(
            "avg_pool2d",
            kernel_size=3,
            stride=2,
            padding=1,
            ceil_mode=True,
            count_include_pad=False,
        ),
        (2, 3, 8, 6),
    ),
    "avg_pool3d": Case(
        lambda x: nn.avg_pool3d(x, (2, 2, 3), count_padding=False, padding=1),
        functional("avg_pool3d", kernel_size=(2, 2, 3), padding=1, count_include_pad=False),
        VOLUME,
    ),
    "adaptive_avg_pool": Case(
        lambda x: nn.adaptive_avg_pool(x, (3, 4)),
        functional("adaptive_avg_pool2d", output_size=(3, 4)),
        IMAGE,
    ),
    "adaptive_avg_pool even": Case(
        lambda x: nn.adaptive_avg_pool(x, (1, 3)),
        functional("adaptive_avg_pool2d", output_size=(1, 3)),
        IMAGE,
    ),
    "global_avg_pool": Case(
        nn.global_avg_pool, functional("adaptive_avg_pool2d", output_size=1), IMAGE
    ),
    "global_max_pool": Case(
        nn.global_max_pool, functional("adaptive_max_pool2d", output_size=1), IMAGE
    ),
    "flatten": Case(nn.flatten, lambda t: t.nn.Flatten(), IMAGE),
    "flatten middle": Case(lambda x: nn.flatten(x, 1, 2), lambda t: t.nn.Flatten(1, 2), IMAGE),
    "pad": Case(
        lambda x: nn.pad(x, [1, 2, -1, 3], value=0.5),
        functional("pad", pad=[1, 2, -1, 3], value=0.5),
        IMAGE,
    ),
    **{
        f"pad {mode}": Case(
            lambda x, mode=mode: nn.pad(x, [1, 2, 3, 0], mode),
            functional("pad", pad=[1, 2, 3, 0], mode=mode),
            IMAGE,
        )
        for mode in ("reflect", "replicate", "circular")
    },
    "upsample nearest": Case(
        lambda x: nn.upsample(x, 2), functional("interpolate", scale_factor=2), IMAGE
    ),
    "upsample nearest size": Case(
        lambda x: nn.upsample(x, size=(10, 4)), functional("interpolate", size=(10, 4)), IMAGE
    ),
    "upsample nearest uneven": Case(
        lambda x: nn.upsample(x, (1.5, 0.5)),
        functional("interpolate", scale_factor=(1.5, 0.5)),
        IMAGE,
    ),
    "upsample linear": Case(
        lambda x: nn.upsample(x, 2, mode="linear"),
        functional("interpolate", scale_factor=2, mode="linear"),
        SIGNAL,
    ),
    "upsample bilinear": Case(
        lambda x: nn.upsample(x, size=(11, 5), mode="linear", align_corners=True),
        functional("interpolate", size=(11, 5), mode="bilinear", align_corners=True),
        IMAGE,
    ),
    "upsample trilinear": Case(
        lambda x: nn.upsample(x, (2, 1, 1.5), mode="linear"),
        functional("interpolate", scale_factor=(2, 1, 1.5), mode="trilinear"),
        VOLUME,
    ),
    "upsample bicubic": Case(
        lambda x: nn.upsample(x, 2, mode="cubic"),
        functional("interpolate", scale_factor=2, mode="bicubic"),
        IMAGE,
    ),
    "lstm": Case(
        lambda x: nn.lstm(x, 5, name="m")[0], lambda t: _first(t.nn.LSTM(4, 5)), (6, 3, 4)
    ),
    "lstm two layers, two ways": Case(
        lambda x: nn.lstm(x, 5, name="m", layers=2, bidirectional=True, batch_first=True)[0],
        lambda t: _first(t.nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True)),
        (3, 6, 4),
    ),
    "lstm states": Case(
        lambda x, h, c: join(*nn.lstm(x, 5, name="m", bias=False, state=h, cell=c)),
        lambda t: _joined(t, t.nn.LSTM(4, 5, bias=False)),
        (6, 3, 4),
        more={"h": (1, 3, 5), "c": (1, 3, 5)},
    ),
    "gru": Case(
        lambda x: nn.gru(x, 5, name="m", layers=2, bidirectional=True)[0],
        lambda t: _first(t.nn.GRU(4, 5, 2, bidirectional=True)),
        (6, 3, 4),
    ),
    "gru states": Case(
        lambda x, h: join(*nn.gru(x, 5, name="m", state=h)),
        lambda t: _joined(t, t.nn.GRU(4, 5)),
        (6, 3, 4),
        more={"h": (1, 3, 5)},
    ),
    "rnn": Case(lambda x: nn.rnn(x, 5, name="m")[0], lambda t: _first(t.nn.RNN(4, 5)), (6, 3, 4)),
    "rnn relu": Case(
        lambda x, h: join(*nn.rnn(x, 5, name="m", activation="relu", bidirectional=True, state=h)),
        lambda t: _joined(t, t.nn.RNN(4, 5, nonlinearity="relu", bidirectional=True)),
        (6, 3, 4),
        more={"h": (2, 3, 5)},
    ),
    "pixel_shuffle": Case(
        lambda x: nn.pixel_shuffle(x, 2), functional("pixel_shuffle", upscale_factor=2), IMAGE
    ),
    "attention": Case(
        nn.attention,
        lambda t: t.nn.functional.scaled_dot_product_attention,
        (2, 2, 5, 4),
        more={"y": (2, 2, 6, 4), "z": (2, 2, 6, 3)},
    ),
    "attention causal": Case(
        lambda q, k, v: nn.attention(q, k, v, causal=True, scale=0.3),
        lambda t: (
            lambda q, k, v: t.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=0.3
            )
        ),
        (2, 2, 5, 4),
        more={"y": (2, 2, 5, 4), "z": (2, 2, 5, 4)},
    ),
    "attention mask": Case(
        nn.attention,
        lambda t: t.nn.functional.scaled_dot_product_attention,
        (2, 2, 5, 4),
        more={"y": (2, 2, 6, 4), "z": (2, 2, 6, 3), "mask": (5, 6)},
    ),
    "attention bool mask": Case(
        lambda q, k, v, m: nn.attention(q, k, v, m > -1.0),
        lambda t: (
            lambda q, k, v, m: t.nn.functional.scaled_dot_product_attention(q, k, v, m > -1.0)
        ),
        (2, 2, 5, 4),
        more={"y": (2, 2, 6, 4), "z": (2, 2, 6, 3), "mask": (2, 1, 5, 6)},
    ),
    "attention grouped": Case(
        nn.attention,
        lambda t: (
            lambda q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        ),
        (2, 4, 5, 4),
        more={"y": (2, 2, 6, 4), "z": (2, 2, 6, 3)},
    ),
    "multi_head_attention": Case(
        lambda x: nn.multi_head_attention(x, 2, name="m"),
        lambda t: _as_self_attention(t, t.nn.MultiheadAttention(8, 2, batch_first=True)),
        (2, 5, 8),
    ),
    "multi_head_attention cross": Case(
        lambda x, y: nn.multi_head_attention(x, 2, name="m", context=y, bias=False),
        lambda t: _as_self_attention(
            t, t.nn.MultiheadAttention(8, 2, batch_first=True, kdim=6, vdim=6, bias=False)
        ),
        (2, 5, 8),
        more={"y": (2, 3, 6)},
    ),
    "multi_head_attention context": Case(
        lambda x, y: nn.multi_head_attention(x, 4, name="m", context=y),
        lambda t: _as_self_attention(t, t.nn.MultiheadAttention(8, 4, batch_first=True)),
        (2, 5, 8),
        more={"y": (2, 3, 8)},
    ),
}


def _as_self_attention(torch: Any, module: torch.nn.Module) -> torch.nn.Module:
    """Call with the queries and the context, and give the result without the weights."""
    inner = module.forward
    module.forward = lambda x, y=None: inner(
        x, *(y if y is not None else x,) * 2, need_weights=False
    )[0]
    return module


def join(*parts: Sym) -> Sym:
    """Return all elements in a row."""
    first, *others = (p.reshape([-1]) for p in parts)
    return first.concat(others, 0)


def _first(module: torch.nn.Module) -> torch.nn.Module:
    """Give the states of all times without the last ones."""
    inner = module.forward
    module.forward = lambda x: inner(x)[0]
    return module


def _joined(torch: Any, module: torch.nn.Module) -> torch.nn.Module:
    """Take first states, and give all results in a row."""
    inner = module.forward

    def forward(x: Any, *states: Any) -> Any:
        y, last = inner(x, states if len(states) > 1 else states[0])
        ends = last if isinstance(last, tuple) else (last,)
        return torch.cat([p.reshape(-1) for p in (y, *ends)])

    module.forward = forward
    return module


def run_ours(
    case: Case, rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, Any], tapeout.Graph]:
    """Return the operands, and the results with gradients, in f64."""
    with tapeout.Builder("layer") as g:
        shapes = {"x": case.shape, **case.more}
        operands = [g.input(n, s, tapeout.f64) for n, s in shapes.items()]
        y = case.ours(*operands)
        weights = g.input("weights", y.shape, tapeout.f64)
        g.output("y", y)
        g.output("loss", (y * weights).sum())
    model = g.graph()
    feed = {v.name: rng.standard_normal(v.type.shape) for v in model.inputs}
    wrt = ["x", *case.more, *model.parameters]
    return feed, tapeout.compile(tapeout.gradients(model, of="loss", wrt=wrt))(**feed), model


@pytest.mark.parametrize("name", CASES)
def test_layer(name: str, rng: np.random.Generator, unchecked: None) -> None:
    import torch

    case = CASES[name]
    feed, found, model = run_ours(case, rng)
    torch.manual_seed(0)
    theirs = case.theirs(torch)
    module = theirs.double() if isinstance(theirs, torch.nn.Module) else None
    if module is not None:
        fresh = {case.prefix + k: v for k, v in module.named_parameters()}
        assert list(fresh) == list(model.parameters), "names, in order"
        for key, tensor in fresh.items():
            _same_law(model.parameters[key].initial, tensor.detach().numpy())
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(model.parameters[key].initial))
    operands = [torch.from_numpy(feed[n]).requires_grad_() for n in ("x", *case.more)]
    y = theirs(*operands)
    (y * torch.from_numpy(feed["weights"])).sum().backward()
    want = {f"grad/{n}": t.grad for n, t in zip(("x", *case.more), operands, strict=True)}
    if module is not None:
        want |= {f"grad/{case.prefix}{k}": p.grad for k, p in module.named_parameters()}
    np.testing.assert_allclose(found["y"], y.detach().numpy(), rtol=1e-9, atol=1e-11)
    for key, gradient in want.items():
        got = found[key]
        wanted = np.zeros_like(got) if gradient is None else gradient.numpy()
        np.testing.assert_allclose(got, wanted, rtol=case.near, atol=1e-10, err_msg=key)


def _same_law(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Both draw from one law, as far as few numbers tell; constants are equal."""
    assert ours.shape == theirs.shape
    if np.ptp(theirs) == 0:
        np.testing.assert_array_equal(ours, theirs)
    elif ours.size >= 8:
        top = [np.max(np.abs(a)) for a in (ours, theirs)]
        assert 0.6 < top[0] / top[1] < 1.6


@pytest.mark.parametrize("padding", [None, 2, -1])
def test_embedding(padding: int | None, rng: np.random.Generator, unchecked: None) -> None:
    """The table and its gradient; the row that pads stays zero and gets none."""
    import torch

    with tapeout.Builder("words") as g:
        ids = g.input("ids", (3, 5), tapeout.i64)
        y = nn.embedding(ids, 7, 4, name="m", padding=padding)
        weights = g.input("weights", y.shape)
        g.output("y", y)
        g.output("loss", (y * weights).sum())
    model = g.graph()
    table = model.parameters["m.weight"].initial
    theirs = torch.nn.Embedding(7, 4, padding_idx=padding)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(table))
    feed = {
        "ids": rng.integers(0, 7, (3, 5)),
        "weights": rng.standard_normal((3, 5, 4)).astype(np.float32),
    }
    found = tapeout.compile(tapeout.gradients(model, wrt=["m.weight"]))(**feed)
    want = theirs(torch.from_numpy(feed["ids"]))
    (want * torch.from_numpy(feed["weights"])).sum().backward()
    np.testing.assert_array_equal(found["y"], want.detach().numpy())
    np.testing.assert_allclose(found["grad/m.weight"], theirs.weight.grad.numpy(), atol=1e-6)
    if padding is not None:
        assert not np.any(table[padding])
        assert not np.any(found["grad/m.weight"][padding])
