"""Modules of torch.nn that are no recurrences and no transformers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from tests.torch_matrix.case import FOLDED, Case, f, ids


class Scaled(nn.Module):
    """Gives a module without parameters one to train: a factor for each entry of its input."""

    def __init__(self, inner: nn.Module, *shape: int) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.rand(shape) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x * self.scale)


class Pair(nn.Module):
    """A module of two arguments, the first scaled."""

    def __init__(self, inner: nn.Module, *shape: int) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.rand(shape) + 0.5)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.inner(x * self.scale, y)


class Bags(nn.Module):
    """Bags of stated beginnings."""

    def __init__(self, inner: nn.Module, offsets: list[int]) -> None:
        super().__init__()
        self.inner, self.offsets = inner, offsets

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, torch.tensor(self.offsets))


class Unpooled(nn.Module):
    """MaxPool with its indices, then MaxUnpool."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{rank}d")(2, return_indices=True)
        self.unpool = getattr(nn, f"MaxUnpool{rank}d")(2)
        self.scale = nn.Parameter(torch.rand([8] * rank) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, where = self.pool(x * self.scale)
        return self.unpool(y, where)


ACTIVATIONS: dict[str, nn.Module] = {
    "CELU": nn.CELU(0.7),
    "ELU": nn.ELU(0.8),
    "GELU": nn.GELU(),
    "GELU(tanh)": nn.GELU("tanh"),
    "GLU": nn.GLU(),
    "Hardshrink": nn.Hardshrink(0.3),
    "Hardsigmoid": nn.Hardsigmoid(),
    "Hardswish": nn.Hardswish(),
    "Hardtanh": nn.Hardtanh(-0.6, 0.9),
    "LeakyReLU": nn.LeakyReLU(0.1),
    "LogSigmoid": nn.LogSigmoid(),
    "LogSoftmax": nn.LogSoftmax(-1),
    "Mish": nn.Mish(),
    "ReLU": nn.ReLU(),
    "ReLU6": nn.ReLU6(),
    "SELU": nn.SELU(),
    "SiLU": nn.SiLU(),
    "Sigmoid": nn.Sigmoid(),
    "Softmax": nn.Softmax(-1),
    "Softmin": nn.Softmin(-1),
    "Softplus": nn.Softplus(),
    "Softplus(beta=2)": nn.Softplus(2.0),
    "Softshrink": nn.Softshrink(0.2),
    "Softsign": nn.Softsign(),
    "Tanh": nn.Tanh(),
    "Tanhshrink": nn.Tanhshrink(),
    "Threshold": nn.Threshold(0.1, -0.5),
}


def activations() -> Iterator[Case]:
    for name, module in ACTIVATIONS.items():
        yield Case(name, lambda m=module: Scaled(m, 6), (f("N", 6),))
    yield Case("PReLU", nn.PReLU, (f("N", 6),))
    yield Case("PReLU(channels)", lambda: nn.PReLU(3, 0.2), (f("N", 3, 4),))
    yield Case("RReLU (evaluation)", lambda: Scaled(nn.RReLU(), 6), (f("N", 6),), train=False)
    yield Case("Softmax2d", lambda: Scaled(nn.Softmax2d(), 3, 4, 4), (f("N", 3, 4, 4),))
    yield Case("Dropout(0)", lambda: Scaled(nn.Dropout(0.0), 6), (f("N", 6),))
    yield Case(
        "Dropout (evaluation)", lambda: Scaled(nn.Dropout(0.5), 6), (f("N", 6),), train=False
    )
    yield Case("Dropout2d(0)", lambda: Scaled(nn.Dropout2d(0.0), 4, 4), (f("N", 2, 4, 4),))
    yield Case("AlphaDropout(0)", lambda: Scaled(nn.AlphaDropout(0.0), 6), (f("N", 6),))


LINE, PLANE, SPACE = ("N", 4, 8), ("N", 4, 6, 6), ("N", 4, 4, 4, 4)
GRIDS = {1: LINE, 2: PLANE, 3: SPACE}


def norms() -> Iterator[Case]:
    for rank, grid in GRIDS.items():
        batch = getattr(nn, f"BatchNorm{rank}d")
        instance = getattr(nn, f"InstanceNorm{rank}d")
        tail = grid[1:]
        yield Case(f"BatchNorm{rank}d", lambda b=batch: b(4), (f(*grid),), variants=FOLDED)
        yield Case(f"BatchNorm{rank}d (evaluation)", lambda b=batch: b(4), (f(*grid),), train=False)
        yield Case(f"InstanceNorm{rank}d", lambda i=instance, t=tail: Scaled(i(4), *t), (f(*grid),))
        yield Case(
            f"InstanceNorm{rank}d(affine)", lambda i=instance: i(4, affine=True), (f(*grid),)
        )
        yield Case(
            f"InstanceNorm{rank}d(track_running_stats)",
            lambda i=instance: i(4, affine=True, track_running_stats=True),
            (f(*grid),),
        )
    yield Case("BatchNorm1d of rows", lambda: nn.BatchNorm1d(6), (f("N", 6),))
    yield Case(
        "BatchNorm2d(affine=False)",
        lambda: Scaled(nn.BatchNorm2d(4, affine=False), 4, 6, 6),
        (f(*PLANE),),
    )
    yield Case(
        "BatchNorm2d(track_running_stats=False)",
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        (f(*PLANE),),
    )
    yield Case("LayerNorm", lambda: nn.LayerNorm(8), (f("N", 5, 8),))
    yield Case("LayerNorm(two axes)", lambda: nn.LayerNorm([5, 8]), (f("N", 5, 8),))
    yield Case("LayerNorm(bias=False)", lambda: nn.LayerNorm(8, bias=False), (f("N", 5, 8),))
    yield Case(
        "LayerNorm(elementwise_affine=False)",
        lambda: Scaled(nn.LayerNorm(8, elementwise_affine=False), 5, 8),
        (f("N", 5, 8),),
    )
    yield Case("GroupNorm", lambda: nn.GroupNorm(2, 4), (f(*PLANE),))
    yield Case(
        "GroupNorm(affine=False)",
        lambda: Scaled(nn.GroupNorm(2, 4, affine=False), 4, 6, 6),
        (f(*PLANE),),
    )
    yield Case("RMSNorm", lambda: nn.RMSNorm(8), (f("N", 5, 8),))
    yield Case("RMSNorm(eps)", lambda: nn.RMSNorm(8, eps=1e-5), (f("N", 5, 8),))
    yield Case(
        "LocalResponseNorm", lambda: Scaled(nn.LocalResponseNorm(3), *PLANE[1:]), (f(*PLANE),)
    )
    yield Case("CrossMapLRN2d", lambda: Scaled(nn.CrossMapLRN2d(3), *PLANE[1:]), (f(*PLANE),))


def pools() -> Iterator[Case]:
    for rank, grid in GRIDS.items():
        tail = grid[1:]

        def pool(
            name: str,
            kind: str,
            *args: object,
            _r: int = rank,
            _t: tuple = tail,
            _g: tuple = grid,
            **more: object,
        ) -> Case:
            made = getattr(nn, f"{kind}{_r}d")
            label = name.format(r=_r)
            return Case(label, lambda: Scaled(made(*args, **more), *_t), (f(*_g),))

        yield pool("MaxPool{r}d(2)", "MaxPool", 2)
        yield pool("MaxPool{r}d(3, 2, 1)", "MaxPool", 3, 2, 1)
        yield pool("AvgPool{r}d(2)", "AvgPool", 2)
        yield pool("AvgPool{r}d(3, 2, 1)", "AvgPool", 3, 2, 1)
        yield pool(
            "AvgPool{r}d(count_include_pad=False)", "AvgPool", 3, 2, 1, count_include_pad=False
        )
        yield pool("AdaptiveAvgPool{r}d(1)", "AdaptiveAvgPool", 1)
        yield pool("AdaptiveAvgPool{r}d(2)", "AdaptiveAvgPool", 2)
        yield pool("AdaptiveMaxPool{r}d(1)", "AdaptiveMaxPool", 1)
        yield pool("AdaptiveMaxPool{r}d(2)", "AdaptiveMaxPool", 2)
        yield pool("LPPool{r}d(2)", "LPPool", 2, 2)
        yield Case(f"MaxUnpool{rank}d", lambda r=rank: Unpooled(r), (f("N", 2, *[8] * rank),))
    yield Case(
        "MaxPool2d(dilation)",
        lambda: Scaled(nn.MaxPool2d(2, 1, dilation=2), *PLANE[1:]),
        (f(*PLANE),),
    )
    yield Case(
        "MaxPool2d(ceil_mode)",
        lambda: Scaled(nn.MaxPool2d(3, 2, ceil_mode=True), *PLANE[1:]),
        (f(*PLANE),),
    )
    yield Case(
        "AvgPool2d(ceil_mode)",
        lambda: Scaled(nn.AvgPool2d(3, 2, ceil_mode=True), *PLANE[1:]),
        (f(*PLANE),),
    )
    yield Case(
        "AdaptiveAvgPool2d(4)", lambda: Scaled(nn.AdaptiveAvgPool2d(4), *PLANE[1:]), (f(*PLANE),)
    )
    yield Case(
        "FractionalMaxPool2d",
        lambda: Scaled(nn.FractionalMaxPool2d(2, 3), *PLANE[1:]),
        (f(*PLANE),),
    )
    yield Case(
        "FractionalMaxPool3d",
        lambda: Scaled(nn.FractionalMaxPool3d(2, 2), *SPACE[1:]),
        (f(*SPACE),),
    )


def convolutions() -> Iterator[Case]:
    for rank, grid in GRIDS.items():
        conv, back = getattr(nn, f"Conv{rank}d"), getattr(nn, f"ConvTranspose{rank}d")
        yield Case(f"Conv{rank}d", lambda c=conv: c(4, 6, 3, padding=1), (f(*grid),))
        yield Case(
            f"Conv{rank}d(groups, dilation)",
            lambda c=conv: c(4, 6, 2, stride=2, groups=2, dilation=2, padding=1),
            (f(*grid),),
        )
        yield Case(
            f"Conv{rank}d(depthwise)", lambda c=conv: c(4, 4, 3, groups=4, bias=False), (f(*grid),)
        )
        yield Case(
            f"ConvTranspose{rank}d",
            lambda b=back: b(4, 3, 3, stride=2, padding=1, output_padding=1),
            (f(*grid),),
        )
        yield Case(
            f"ConvTranspose{rank}d(groups, dilation)",
            lambda b=back: b(4, 6, 2, groups=2, dilation=2),
            (f(*grid),),
        )
    for mode in ("reflect", "replicate", "circular"):
        yield Case(
            f"Conv2d(padding_mode={mode})",
            lambda m=mode: nn.Conv2d(4, 3, 3, padding=1, padding_mode=m),
            (f(*PLANE),),
        )
    yield Case("Conv2d(padding=same)", lambda: nn.Conv2d(4, 3, 3, padding="same"), (f(*PLANE),))
    yield Case(
        "Conv2d, BatchNorm2d, ReLU",
        lambda: nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.ReLU()),
        (f(*PLANE),),
        variants=FOLDED,
    )


def shapes() -> Iterator[Case]:
    plane = PLANE[1:]
    yield Case("PixelShuffle", lambda: Scaled(nn.PixelShuffle(2), *plane), (f(*PLANE),))
    yield Case("PixelUnshuffle", lambda: Scaled(nn.PixelUnshuffle(2), *plane), (f(*PLANE),))
    yield Case("ChannelShuffle", lambda: Scaled(nn.ChannelShuffle(2), *plane), (f(*PLANE),))
    yield Case("Flatten", lambda: Scaled(nn.Flatten(), *plane), (f(*PLANE),))
    yield Case("Unflatten", lambda: Scaled(nn.Unflatten(1, (2, 2)), *plane), (f(*PLANE),))
    yield Case("Unfold", lambda: Scaled(nn.Unfold(3, padding=1, stride=2), *plane), (f(*PLANE),))
    yield Case("Fold", lambda: Scaled(nn.Fold((5, 5), 2), 8, 16), (f("N", 8, 16),))
    for mode, rank in (
        ("nearest", 1),
        ("nearest", 2),
        ("nearest", 3),
        ("linear", 1),
        ("bilinear", 2),
        ("bicubic", 2),
        ("trilinear", 3),
    ):
        name = (
            f"Upsample({mode})" if mode != "nearest" or rank == 2 else f"Upsample(nearest, {rank}d)"
        )
        grid = GRIDS[rank]
        yield Case(
            name,
            lambda m=mode, g=grid: Scaled(nn.Upsample(scale_factor=2, mode=m), *g[1:]),
            (f(*grid),),
        )
        if mode not in ("nearest",):
            yield Case(
                f"Upsample({mode}, align_corners)",
                lambda m=mode, g=grid: Scaled(
                    nn.Upsample(scale_factor=2, mode=m, align_corners=True), *g[1:]
                ),
                (f(*grid),),
            )
    yield Case(
        "Upsample(bilinear, size)",
        lambda: Scaled(nn.Upsample((9, 4), mode="bilinear"), *plane),
        (f(*PLANE),),
    )
    yield Case(
        "UpsamplingNearest2d",
        lambda: Scaled(nn.UpsamplingNearest2d(scale_factor=2), *plane),
        (f(*PLANE),),
    )
    yield Case(
        "UpsamplingBilinear2d",
        lambda: Scaled(nn.UpsamplingBilinear2d(scale_factor=2), *plane),
        (f(*PLANE),),
    )
    for rank, grid in GRIDS.items():
        for kind in ("Reflection", "Replication", "Zero", "Constant", "Circular"):
            pad = getattr(nn, f"{kind}Pad{rank}d")
            amount = (1, 2) + (1, 1) * (rank - 1)
            more = (0.7,) if kind == "Constant" else ()
            yield Case(
                f"{kind}Pad{rank}d",
                lambda p=pad, a=amount, m=more, g=grid: Scaled(p(a, *m), *g[1:]),
                (f(*grid),),
            )


def linears() -> Iterator[Case]:
    yield Case("Linear", lambda: nn.Linear(6, 4), (f("N", 6),), variants=FOLDED)
    yield Case(
        "Linear (rank 3)", lambda: nn.Linear(6, 4, bias=False), (f("N", 5, 6),), variants=FOLDED
    )
    yield Case("Bilinear", lambda: nn.Bilinear(4, 3, 5), (f("N", 4), f("N", 3)))
    yield Case("Identity", lambda: Scaled(nn.Identity(), 6), (f("N", 6),))
    yield Case("Embedding", lambda: nn.Embedding(10, 4), (ids(10, "N", 5),), variants=FOLDED)
    yield Case(
        "Embedding(padding_idx)", lambda: nn.Embedding(10, 4, padding_idx=0), (ids(10, "N", 5),)
    )
    for mode in ("sum", "mean", "max"):
        yield Case(
            f"EmbeddingBag({mode})",
            lambda m=mode: nn.EmbeddingBag(10, 4, mode=m),
            (ids(10, "N", 5),),
        )
    yield Case(
        "EmbeddingBag(offsets)",
        lambda: Bags(nn.EmbeddingBag(10, 4, mode="sum"), [0, 3, 5]),
        (ids(10, 7),),
    )
    yield Case("CosineSimilarity", lambda: Pair(nn.CosineSimilarity(), 6), (f("N", 6), f("N", 6)))
    yield Case(
        "PairwiseDistance", lambda: Pair(nn.PairwiseDistance(eps=1e-2), 6), (f("N", 6), f("N", 6))
    )
    yield Case(
        "MLP, cross entropy",
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)),
        (f("N", 6),),
        classes=5,
        variants=FOLDED,
    )


def cases() -> Iterator[Case]:
    """Yield all of them."""
    for family in (activations, norms, pools, convolutions, shapes, linears):
        yield from family()
