"""JAX: one jitted step that owns its state; pictures with channels last, as its libraries have them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from benchmarks.workloads import Workload

VERSION = f"jax {jax.__version__}, optax {optax.__version__}"


class Net:
    """Layers in jax.numpy over dictionaries of parameters and statistics; `new` holds the statistics after the step."""

    def __init__(self, parameters: dict[str, Any], statistics: dict[str, Any]) -> None:
        self.p, self.s = parameters, statistics
        self.new: dict[str, Any] = {}

    def parameter(self, name: str, shape: Any = None, scale: float = 0.0) -> Any:
        return self.p[name]

    def linear(self, x: Any, name: str, inside: int, outside: int, bias: bool = True) -> Any:
        y = x @ self.p[f"{name}.weight"].T
        return y + self.p[f"{name}.bias"] if bias else y

    def conv(
        self, x: Any, name: str, inside: int, outside: int, kernel: int, stride: int = 1, pad: int = 0,
        groups: int = 1, bias: bool = False,
    ) -> Any:  # fmt: skip
        y = lax.conv_general_dilated(
            x, self.p[f"{name}.weight"], (stride, stride), [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip
        return y + self.p[f"{name}.bias"] if bias else y

    def batch_norm(self, x: Any, name: str, size: int) -> Any:
        wide = x.astype(jnp.float32)
        mean = wide.mean((0, 1, 2))
        # Variance in one pass, as flax.linen.BatchNorm computes it by default.
        var = jnp.maximum(jnp.square(wide).mean((0, 1, 2)) - jnp.square(mean), 0.0)
        count = x.size // size
        self.new[f"{name}.mean"] = 0.9 * self.s[f"{name}.mean"] + 0.1 * mean
        self.new[f"{name}.var"] = 0.9 * self.s[f"{name}.var"] + 0.1 * var * (count / (count - 1))
        scale = self.p[f"{name}.weight"] * lax.rsqrt(var + 1e-5)
        return ((wide - mean) * scale + self.p[f"{name}.bias"]).astype(x.dtype)

    def layer_norm(self, x: Any, name: str, size: int) -> Any:
        wide = x.astype(jnp.float32)
        mean = wide.mean(-1, keepdims=True)
        var = jnp.square(wide - mean).mean(-1, keepdims=True)
        y = (wide - mean) * lax.rsqrt(var + 1e-5)
        return (y * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]).astype(x.dtype)

    def relu(self, x: Any) -> Any:
        return jax.nn.relu(x)

    def relu6(self, x: Any) -> Any:
        return jax.nn.relu6(x)

    def gelu(self, x: Any, tanh: bool) -> Any:
        return jax.nn.gelu(x, approximate=tanh)

    def max_pool(self, x: Any, kernel: int, stride: int, pad: int = 0) -> Any:
        border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1), border
        )

    def mean_pool(self, x: Any) -> Any:
        return x.mean((1, 2))

    def flatten(self, x: Any) -> Any:
        # The weights that follow are in the order of channels first.
        return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)

    def rows(self, x: Any, classes: int) -> Any:
        return x.reshape(-1, classes)

    def patches(self, x: Any) -> Any:
        return x.reshape(x.shape[0], -1, x.shape[-1])

    def with_first(self, first: Any, x: Any) -> Any:
        repeated = jnp.broadcast_to(first, (x.shape[0], 1, x.shape[-1])).astype(x.dtype)
        return jnp.concatenate([repeated, x], 1)

    def embedding(self, x: Any, name: str, count: int, size: int) -> Any:
        return self.p[f"{name}.weight"][x]

    def attention(self, x: Any, name: str, size: int, heads: int, causal: bool) -> Any:
        n, t, _ = x.shape
        qkv = self.linear(x, f"{name}.qkv", size, 3 * size).reshape(n, t, 3, heads, size // heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
        return self.linear(y.reshape(n, t, size), f"{name}.out", size, size)

    def lstm(self, x: Any, name: str, size: int, depth: int) -> Any:
        x = x.swapaxes(0, 1)
        for i in range(depth):
            w, u = (self.p[f"{name}.{i}.{k}"].T for k in ("input", "hidden"))
            bias = self.p[f"{name}.{i}.input_bias"] + self.p[f"{name}.{i}.hidden_bias"]

            def cell(carry: Any, row: Any, u: Any = u) -> Any:
                h, c = carry
                gate, forget, new, out = jnp.split(row + h @ u, 4, -1)
                c = jax.nn.sigmoid(forget) * c + jax.nn.sigmoid(gate) * jnp.tanh(new)
                h = jax.nn.sigmoid(out) * jnp.tanh(c)
                return (h, c), h

            zero = jnp.zeros((x.shape[1], size), x.dtype)
            x = lax.scan(cell, (zero, zero), x @ w + bias)[1]
        return x.swapaxes(0, 1)


def _optimizer(kind: str, settings: dict[str, float]) -> Any:
    if kind == "adam":
        return optax.adam(settings["lr"])
    if kind == "adamw":
        return optax.adamw(settings["lr"], weight_decay=settings["weight_decay"])
    sgd = optax.sgd(settings["lr"], momentum=settings["momentum"])
    decay = settings.get("weight_decay", 0.0)
    return optax.chain(optax.add_decayed_weights(decay), sgd) if decay else sgd


class Engine:
    """One jitted step a call."""

    def __init__(self, workload: Workload, options: set[str], threads: int, precision: str) -> None:
        pictures = workload.is_picture
        self.p = {
            n: jnp.asarray(a.transpose(2, 3, 1, 0) if a.ndim == 4 else a)
            for n, a in workload.weights().items()
        }
        self.s = {n: jnp.full(k, v, jnp.float32) for n, (k, v) in workload.net.statistics.items()}
        optimizer = _optimizer(*workload.optimizer)
        self.o = optimizer.init(self.p)

        def loss_of(p: Any, s: Any, x: Any, labels: Any) -> Any:
            if precision == "bf16":
                p = {n: a.astype(jnp.bfloat16) for n, a in p.items()}
                x = x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x
            net = Net(p, s)
            scores = workload.build(net, x).astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
            return losses.mean(), net.new

        @partial(jax.jit, donate_argnums=(0, 1, 2))
        def step(p: Any, s: Any, o: Any, x: Any, labels: Any) -> Any:
            (loss, s), g = jax.value_and_grad(loss_of, has_aux=True)(p, s, x, labels)
            change, o = optimizer.update(g, o, p)
            return optax.apply_updates(p, change), s, o, loss

        self.run = step
        self.batches = [
            (jnp.asarray(x.transpose(0, 2, 3, 1) if pictures else x), jnp.asarray(y))
            for x, y in workload.batches()
        ]

    def step(self, i: int) -> Any:
        """Run a step, wait for it, and return the loss."""
        x, labels = self.batches[i % len(self.batches)]
        self.p, self.s, self.o, loss = self.run(self.p, self.s, self.o, x, labels)
        jax.block_until_ready((loss, self.p))
        return loss

    def value(self, loss: Any) -> float:
        """Return a loss as a number."""
        return float(loss)
