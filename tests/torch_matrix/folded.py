"""Writes the files of tests/records/folded: one small network, exported as it should not be for training, and as it should.

python -m tests.torch_matrix.folded
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn

from tests.torch_matrix.exporting import quiet

FOLDER = Path(__file__).resolve().parents[1] / "records" / "folded"


class Net(nn.Module):
    """What exporters fold: a normalised convolution, a recurrence, tables of positions, a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.words = nn.Embedding(5, 4)
        self.positions = nn.Parameter(torch.randn(1, 4, 4))
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.drop = nn.Dropout(0.1)
        self.mix = nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.bn(self.conv(x))).mean((2, 3))
        y, _ = self.lstm(self.words(ids) + self.positions[:, :3] + seen[:, None])
        return torch.softmax(self.mix(self.drop(y)) @ self.words.weight.T, -1)


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    args = (torch.zeros(2, 2, 6, 6), torch.zeros(2, 3, dtype=torch.int64))
    for name, train, options in (
        ("dynamo_folded", False, {"dynamo": True, "optimize": True, "external_data": False}),
        ("dynamo_evaluation", False, {"dynamo": True, "optimize": False, "external_data": False}),
        ("dynamo_training", True, {"dynamo": True, "optimize": False, "external_data": False}),
        ("legacy_folded", False, {"dynamo": False}),
        (
            "legacy_training",
            True,
            {
                "dynamo": False,
                "do_constant_folding": False,
                "training": torch.onnx.TrainingMode.TRAINING,
            },
        ),
    ):
        torch.manual_seed(0)
        path = FOLDER / f"{name}.onnx"
        with quiet():
            torch.onnx.export(
                Net().train(train),
                args,
                path,
                input_names=["x", "ids"],
                opset_version=18,
                verbose=False,
                **options,
            )
        path.write_bytes(without_machine(onnx.load(path)).SerializeToString(deterministic=True))


def without_machine(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what names files of the exporting machine, and types of values, which import makes anew."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        kept = [
            p
            for p in node.metadata_props
            if p.key in ("namespace", "pkg.onnxscript.rewriter.rule_name")
        ]
        kept = [onnx.StringStringEntryProto(key=p.key, value=p.value) for p in kept]
        node.ClearField("metadata_props")
        node.metadata_props.extend(kept)
    model.graph.ClearField("value_info")
    model.graph.ClearField("doc_string")
    return model


if __name__ == "__main__":
    main()
