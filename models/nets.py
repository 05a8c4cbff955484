"""The networks of this folder in PyTorch; parameters are called as in the files."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

SEED = 20260
"""Seed of PyTorch's generator when the initial weights are drawn."""


class Mlp(nn.Module):
    """784-128-64-10 with ReLU: images f32[N, 784] -> logits f32[N, 10]."""

    example_shape = (784,)

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of flat images."""
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling: images f32[N, 1, 28, 28] -> logits f32[N, 10]."""

    example_shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


class TinyMlp(nn.Module):
    """The Mlp's operators on a few numbers, for the opset matrix: f32[N, 8] -> f32[N, 3]."""

    example_shape = (8,)

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return class probabilities, so that the file ends in Softmax."""
        return torch.softmax(self.fc2(torch.relu(self.fc1(x))), dim=-1)


class TinyLeNet(nn.Module):
    """The LeNet's operators on a few numbers, for the matrix: f32[N, 1, 12, 12] -> f32[N, 3]."""

    example_shape = (1, 12, 12)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 5, padding=2)
        self.conv2 = nn.Conv2d(2, 3, 3)
        self.fc1 = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc1(x.reshape(x.shape[0], -1))


class Residual(nn.Module):
    """Two convolutions with batch normalisation beside a way past them."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.past = nn.Identity()
        if stride > 1 or inside != outside:
            self.past = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the block makes of images."""
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + self.past(x))


class ResNet(nn.Module):
    """Residual blocks of 8, 16 and 32 channels: images f32[N, 3, 32, 32] -> logits f32[N, 10]."""

    example_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = Residual(8, 8, 1)
        self.layer2 = Residual(8, 16, 2)
        self.layer3 = Residual(16, 32, 2)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Separable(nn.Module):
    """MobileNet's pair: a convolution of each channel, then one across channels; each with BatchNorm and Hardswish."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.pointwise = nn.Conv2d(inside, outside, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the pair makes of images."""
        h = nn.functional.hardswish(self.bn1(self.depthwise(x)))
        return nn.functional.hardswish(self.bn2(self.pointwise(h)))


class MobileNet(nn.Module):
    """Depthwise convolutions: images f32[N, 3, 32, 32] -> logits f32[N, 10]."""

    example_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(
            Separable(8, 16, 1), Separable(16, 32, 2), Separable(32, 32, 1), Separable(32, 48, 2)
        )
        self.fc = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        x = self.blocks(nn.functional.hardswish(self.bn(self.stem(x))))
        return self.fc(x.mean((2, 3)))


class ConvNextBlock(nn.Module):
    """A 7x7 convolution of each channel, then a widening pair of layers; LayerNorm and GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the block makes of images."""
        h = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        h = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(h)))
        return x + h.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """ConvNeXt's blocks of 12 and 24 channels: images f32[N, 3, 32, 32] -> logits f32[N, 10]."""

    example_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.norm1 = nn.LayerNorm(12, eps=1e-6)
        self.block1 = ConvNextBlock(12)
        self.norm2 = nn.LayerNorm(12, eps=1e-6)
        self.down = nn.Conv2d(12, 24, 2, 2)
        self.block2 = ConvNextBlock(24)
        self.norm = nn.LayerNorm(24, eps=1e-6)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        x = self.norm1(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.block1(x)
        x = self.norm2(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.block2(self.down(x))
        return self.head(self.norm(x.mean((2, 3))))


class Convolved(nn.Module):
    """A convolution, GroupNorm, SiLU."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, padding=1)
        self.norm = nn.GroupNorm(2, outside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layers make of images."""
        return nn.functional.silu(self.norm(self.conv(x)))


class UNet(nn.Module):
    """A class for every pixel: images f32[N, 1, 16, 16] -> logits f32[N, 3, 16, 16]."""

    example_shape = (1, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.down1 = Convolved(1, 8)
        self.down2 = Convolved(8, 16)
        self.middle = Convolved(16, 32)
        self.up2 = nn.ConvTranspose2d(32, 16, 2, 2)
        self.join2 = Convolved(32, 16)
        self.up1 = nn.ConvTranspose2d(16, 8, 2, 2)
        self.join1 = Convolved(16, 8)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of every pixel of a batch of images."""
        one = self.down1(x)
        two = self.down2(torch.max_pool2d(one, 2))
        h = self.middle(torch.max_pool2d(two, 2))
        h = self.join2(torch.cat([self.up2(h), two], 1))
        return self.head(self.join1(torch.cat([self.up1(h), one], 1)))


class Attended(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return attention of `x` f32[N, T, D] to itself."""
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(n, t, d))


class PreNorm(nn.Module):
    """A transformer's layer that normalises first: GPT's and ViT's."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attended(width, heads, causal=causal)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer makes of `x` f32[N, T, D]."""
        x = x + self.attn(self.ln1(x))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.ln2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """GPT with causal attention, the table of letters its head: ids i64[N, 16] -> f32[N, 16, 32]."""

    inputs: ClassVar = {"ids": ((16,), torch.int64)}

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(32, 32), nn.Embedding(16, 32)
        self.h = nn.ModuleList(PreNorm(32, 2, causal=True) for _ in range(2))
        self.ln = nn.LayerNorm(32)
        self.head = nn.Linear(32, 32, bias=False)
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the scores of the ids that follow each."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for layer in self.h:
            x = layer(x)
        return self.head(self.ln(x))


class PostNorm(nn.Module):
    """BERT's layer, which normalises last."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attended(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return what the layer makes of `x` f32[N, T, D]."""
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.fc2(nn.functional.gelu(self.fc1(x))))


class Bert(nn.Module):
    """BERT as a classifier: ids i64[N, 12], attention_mask i64[N, 12] -> logits f32[N, 4]."""

    inputs: ClassVar = {"ids": ((12,), torch.int64), "attention_mask": ((12,), torch.int64)}

    def __init__(self) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(32, 32, padding_idx=0), nn.Embedding(12, 32)
        self.norm = nn.LayerNorm(32)
        self.layers = nn.ModuleList(PostNorm(32, 4) for _ in range(2))
        self.pooler = nn.Linear(32, 32)
        self.classifier = nn.Linear(32, 4)

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of sentences; where the mask is 0 they have ended."""
        x = self.norm(self.word(ids) + self.position(torch.arange(ids.shape[1])))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


class Vit(nn.Module):
    """Vision transformer over patches of 4x4: images f32[N, 3, 16, 16] -> logits f32[N, 10]."""

    example_shape = (3, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.first = nn.Parameter(torch.randn(1, 1, 32) * 0.1)
        self.position = nn.Parameter(torch.randn(1, 17, 32) * 0.1)
        self.blocks = nn.ModuleList(PreNorm(32, 4, causal=False) for _ in range(2))
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.position
        for layer in self.blocks:
            x = layer(x)
        return self.head(self.norm(x[:, 0]))


class Lstm(nn.Module):
    """LSTM in both directions as a classifier: series f32[N, 16, 8] -> logits f32[N, 5]."""

    example_shape = (16, 8)

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of series."""
        y, _ = self.lstm(x)
        return self.fc(y.mean(1))


NETS: dict[str, type[nn.Module]] = {
    "mlp": Mlp,
    "lenet": LeNet,
    "resnet": ResNet,
    "mobilenet": MobileNet,
    "convnext": ConvNext,
    "unet": UNet,
    "gpt": Gpt,
    "bert": Bert,
    "vit": Vit,
    "lstm": Lstm,
    "tiny_mlp": TinyMlp,
    "tiny_lenet": TinyLeNet,
}


def build(name: str) -> nn.Module:
    """Return the network with the initial weights of `SEED`, in evaluation mode.

    What norms and biases start from is drawn, too: of equal tensors an exporter may write one.
    """
    torch.manual_seed(SEED)
    net = NETS[name]().eval()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if torch.is_floating_point(tensor) and tensor.numel() > 1 and _is_constant(tensor):
                tensor.add_(torch.rand_like(tensor) * 0.2 - 0.1)
    return net


def _is_constant(tensor: torch.Tensor) -> bool:
    return bool((tensor == tensor.flatten()[0]).all())


def inputs_of(net: nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape of a sample and element type of each input, by name."""
    found = getattr(net, "inputs", None)
    return {"x": (net.example_shape, torch.float32)} if found is None else found
