"""tapeout on the network that PyTorch exported, as it is shipped: one `Trainer.step` a step."""

from __future__ import annotations

from typing import Any

import tapeout
from benchmarks.workloads import Workload

VERSION = f"tapeout {tapeout.__version__}"
OPSET = 17


class Engine:
    """One native call a step."""

    def __init__(
        self,
        workload: Workload,
        options: set[str],
        threads: int,
        precision: str,
        model: str = "",
        target: str = "native",
    ) -> None:
        self.is_many = "many" in options
        kind, settings = workload.optimizer
        extra: dict[str, Any] = {} if precision == "f32" else {"precision": precision}
        self.trainer = tapeout.Trainer(
            tapeout.load_onnx(model, mode="as-exported"),
            loss=tapeout.losses.cross_entropy("logits"),
            optimizer=getattr(tapeout.optimizers, kind)(**settings),
            threads=threads,
            target=target,
            **extra,
        )
        self.batches = [{"x": x, "labels": y} for x, y in workload.batches()]

    def step(self, i: int) -> Any:
        """Run a step and return the loss."""
        return self.trainer.step(self.batches[i % len(self.batches)])["loss"]

    def many(self, count: int) -> Any:
        """Run several steps in one call and return the last loss."""
        chosen = [self.batches[i % len(self.batches)] for i in range(count)]
        return self.trainer.steps(chosen, steps_per_call=count)[-1]["loss"]

    def value(self, loss: Any) -> float:
        """Return a loss as a number."""
        return float(loss)

    def memory(self) -> dict[str, int]:
        """Return the bytes of the arena by part."""
        return dict(vars(self.trainer.memory))
