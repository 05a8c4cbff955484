"""onnxruntime-training on the network that PyTorch exported.

Its SGD knows neither momentum nor weight decay. Where a workload has them, it does less work and its loss departs from the others'
in the second step; such a run is published and counts as no peer.
"""

from __future__ import annotations

import tempfile
from typing import Any

import onnx
import onnxruntime
from onnxruntime.training import artifacts, onnxblock
from onnxruntime.training.api import CheckpointState, Module, Optimizer

from benchmarks.workloads import Workload

onnxruntime.set_default_logger_severity(3)
VERSION = f"onnxruntime-training {onnxruntime.__version__}"
OPSET = 16
"""Its gradient builder wants more results than LayerNormalization of opset 17 gives."""


class Engine:
    """One step a call: module and optimiser."""

    def __init__(
        self, workload: Workload, options: set[str], threads: int, precision: str, model: str = ""
    ) -> None:
        if precision != "f32":
            raise SystemExit("onnxruntime-training has no bf16 on CPUs")
        folder = tempfile.mkdtemp(prefix="ort-training-")
        proto = onnx.load(model)
        trained = {n.replace(".", "_") for n in workload.net.parameters}
        kind, settings = workload.optimizer
        adam = onnxblock.optim.AdamW(eps=1e-8, weight_decay=settings.get("weight_decay", 0.0))
        artifacts.generate_artifacts(
            proto,
            requires_grad=[i.name for i in proto.graph.initializer if i.name in trained],
            loss=artifacts.LossType.CrossEntropyLoss,
            optimizer=onnxblock.optim.SGD() if kind == "sgd" else adam,
            artifact_directory=folder,
        )
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads, session.inter_op_num_threads = threads, 1
        state = CheckpointState.load_checkpoint(f"{folder}/checkpoint")
        self.module = Module(f"{folder}/training_model.onnx", state, None, session_options=session)
        self.optimizer = Optimizer(f"{folder}/optimizer_model.onnx", self.module)
        self.optimizer.set_learning_rate(settings["lr"])
        self.module.train()
        self.batches = workload.batches()

    def step(self, i: int) -> Any:
        """Run a step and return the loss."""
        loss = self.module(*self.batches[i % len(self.batches)])
        self.optimizer.step()
        self.module.lazy_reset_grad()
        return loss

    def value(self, loss: Any) -> float:
        """Return a loss as a number."""
        return float(loss)
