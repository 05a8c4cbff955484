"""PyTorch: eager or compiled, contiguous or channels_last, float32 or bfloat16 autocast; also writes the networks as ONNX."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as f

from benchmarks.workloads import Workload

VERSION = f"torch {torch.__version__}"


@torch.compiler.disable
def _library_lstm(x: Any, weights: list[Any], depth: int, size: int) -> Any:
    """The library's LSTM, outside of compiled graphs as `nn.LSTM` is."""
    start = torch.zeros(depth, x.shape[0], size, dtype=x.dtype)
    return torch._VF.lstm(x, (start, start), weights, True, depth, 0.0, True, False, True)[0]


class Net:
    """Layers in PyTorch, functional, over dictionaries of parameters and statistics."""

    def __init__(self, parameters: dict[str, Any], statistics: dict[str, Any]) -> None:
        self.p, self.s = parameters, statistics

    def parameter(self, name: str, shape: Any = None, scale: float = 0.0) -> Any:
        return self.p[name]

    def linear(self, x: Any, name: str, inside: int, outside: int, bias: bool = True) -> Any:
        return f.linear(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"] if bias else None)

    def conv(
        self, x: Any, name: str, inside: int, outside: int, kernel: int, stride: int = 1, pad: int = 0,
        groups: int = 1, bias: bool = False,
    ) -> Any:  # fmt: skip
        b = self.p[f"{name}.bias"] if bias else None
        return f.conv2d(x, self.p[f"{name}.weight"], b, stride, pad, 1, groups)

    def batch_norm(self, x: Any, name: str, size: int) -> Any:
        mean, var = self.s[f"{name}.mean"], self.s[f"{name}.var"]
        scale, bias = self.p[f"{name}.weight"], self.p[f"{name}.bias"]
        return f.batch_norm(x, mean, var, scale, bias, True, 0.1, 1e-5)

    def layer_norm(self, x: Any, name: str, size: int) -> Any:
        return f.layer_norm(x, (size,), self.p[f"{name}.weight"], self.p[f"{name}.bias"], 1e-5)

    def relu(self, x: Any) -> Any:
        return f.relu(x)

    def relu6(self, x: Any) -> Any:
        return f.relu6(x)

    def gelu(self, x: Any, tanh: bool) -> Any:
        return f.gelu(x, approximate="tanh" if tanh else "none")

    def max_pool(self, x: Any, kernel: int, stride: int, pad: int = 0) -> Any:
        return f.max_pool2d(x, kernel, stride, pad)

    def mean_pool(self, x: Any) -> Any:
        return f.adaptive_avg_pool2d(x, 1).flatten(1)

    def flatten(self, x: Any) -> Any:
        return x.flatten(1)

    def rows(self, x: Any, classes: int) -> Any:
        return x.reshape(-1, classes)

    def patches(self, x: Any) -> Any:
        return x.flatten(2).transpose(1, 2)

    def with_first(self, first: Any, x: Any) -> Any:
        return torch.cat([first.expand(x.shape[0], -1, -1).to(x.dtype), x], 1)

    def embedding(self, x: Any, name: str, count: int, size: int) -> Any:
        return f.embedding(x, self.p[f"{name}.weight"])

    def attention(self, x: Any, name: str, size: int, heads: int, causal: bool) -> Any:
        n, t, _ = x.shape
        qkv = self.linear(x, f"{name}.qkv", size, 3 * size).reshape(n, t, 3, heads, size // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = f.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.linear(y.transpose(1, 2).reshape(n, t, size), f"{name}.out", size, size)

    def lstm(self, x: Any, name: str, size: int, depth: int) -> Any:
        parts = ("input", "hidden", "input_bias", "hidden_bias")
        return _library_lstm(
            x, [self.p[f"{name}.{i}.{k}"] for i in range(depth) for k in parts], depth, size
        )


def tensors(workload: Workload) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and statistics."""
    parameters = {n: torch.from_numpy(a).requires_grad_() for n, a in workload.weights().items()}
    statistics = {
        n: torch.full((size,), value) for n, (size, value) in workload.net.statistics.items()
    }
    return parameters, statistics


class Engine:
    """One training step a call.

    Args:
        workload: What is trained.
        options: Any of `compile`, `channels_last`, `mkl` (set by the process that starts this one).
        threads: Threads.
        precision: `f32` or `bf16`.
    """

    def __init__(self, workload: Workload, options: set[str], threads: int, precision: str) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        last = torch.channels_last if "channels_last" in options and workload.is_picture else None
        parameters, statistics = tensors(workload)
        if last is not None:
            parameters = {
                n: t.detach().to(memory_format=last).requires_grad_() if t.ndim == 4 else t
                for n, t in parameters.items()
            }
        net = Net(parameters, statistics)
        kind, settings = workload.optimizer
        make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
        self.optimizer = make(list(parameters.values()), fused=True, **settings)
        narrow = precision == "bf16"

        def loss_of(x: Any, labels: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                scores = workload.build(net, x)
                return f.cross_entropy(scores.float(), labels)

        self.loss_of = torch.compile(loss_of) if "compile" in options else loss_of
        pairs = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in workload.batches()]
        self.batches = [(x if last is None else x.to(memory_format=last), y) for x, y in pairs]

    def step(self, i: int) -> Any:
        """Run a step and return the loss."""
        x, labels = self.batches[i % len(self.batches)]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(x, labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def value(self, loss: Any) -> float:
        """Return a loss as a number."""
        return float(loss.item())


def export(workload: Workload, path: str, opset: int) -> None:
    """Write a network in training mode, with its first weights, as ONNX: input `x`, output `logits`."""
    parameters, statistics = tensors(workload)

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, t in parameters.items():
                self.register_parameter(name.replace(".", "_"), torch.nn.Parameter(t.detach()))
            for name, t in statistics.items():
                self.register_buffer(name.replace(".", "_"), t)

        def forward(self, x: Any) -> Any:
            p = {n: getattr(self, n.replace(".", "_")) for n in parameters}
            s = {n: getattr(self, n.replace(".", "_")) for n in statistics}
            return workload.build(Net(p, s), x)

    torch.onnx.export(
        Module(), (torch.from_numpy(workload.batches(1)[0][0]),), path, dynamo=False, opset_version=opset,
        training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False, input_names=["x"],
        output_names=["logits"],
    )  # fmt: skip
