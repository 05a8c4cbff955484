"""Export the networks of nets.py to ONNX with both of PyTorch's exporters.

    python models/export_torch.py                  write the files that the repository keeps
    python models/export_torch.py --matrix FOLDER  only the small networks, every exporter and
    opset, into FOLDER

Needs torch, onnx and onnxscript (versions: models/README.md); tapeout itself needs none of them but
onnx. The weights come from a fixed seed, and what an exporter notes about the exporting machine
(stack traces, source paths) is dropped, so a second run writes the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import tempfile
import warnings
from pathlib import Path

import nets
import numpy as np
import onnx
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
LEGACY_OPSETS = range(9, 24)
DYNAMO_OPSETS = range(18, 27)
KEPT = (
    ("mlp", "dynamo", 18, "mlp"),
    ("lenet", "dynamo", 18, "lenet"),
    ("lenet", "legacy", 9, "lenet_legacy_opset9"),
    ("resnet", "dynamo", 18, "resnet"),
    ("mobilenet", "legacy", 14, "mobilenet"),
    ("convnext", "dynamo", 20, "convnext"),
    ("unet", "dynamo", 18, "unet"),
    ("gpt", "dynamo", 23, "gpt"),
    ("bert", "dynamo", 18, "bert"),
    ("vit", "dynamo", 20, "vit"),
    ("lstm", "dynamo", 18, "lstm"),
)
TINY = ("tiny_mlp", "tiny_lenet")
SAMPLES = 5
"""Rows of the recorded inputs; also not the number of rows that the exporters are shown."""


def _export_legacy(
    net: nn.Module, example: dict[str, torch.Tensor], opset: int, path: Path
) -> None:
    """Write `net` with the exporter that traces TorchScript; batch norms stay nodes of their own."""
    torch.onnx.export(
        net,
        tuple(example.values()),
        path,
        dynamo=False,
        opset_version=opset,
        input_names=list(example),
        output_names=["logits"],
        dynamic_axes={name: {0: "N"} for name in (*example, "logits")},
        **_AS_IT_IS if _has_modes(net) else {},
    )


_AS_IT_IS = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}


def _has_modes(net: nn.Module) -> bool:
    """Return whether there are layers that an exporter would fold into others."""
    return any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def _export_dynamo(
    net: nn.Module, example: dict[str, torch.Tensor], opset: int, path: Path
) -> None:
    """Write `net` with the exporter of torch.export, not optimised, so that parameters survive."""
    torch.onnx.export(
        net,
        tuple(example.values()),
        path,
        dynamo=True,
        optimize=False,
        external_data=False,
        verbose=False,
        opset_version=opset,
        input_names=list(example),
        output_names=["logits"],
        dynamic_shapes={name: {0: torch.export.Dim("N")} for name in example},
    )


def _without_machine(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop documentation strings and stack traces: they name files of the exporting machine."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        kept = [p for p in node.metadata_props if not p.key.endswith("stack_trace")]
        kept = [onnx.StringStringEntryProto(key=p.key, value=p.value) for p in kept]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return model


def export(name: str, exporter: str, opset: int, path: Path) -> None:
    """Write one network with its seeded weights.

    Args:
        name: A key of `nets.NETS`.
        exporter: `legacy` or `dynamo`.
        opset: Operator set version; the file must end up with exactly this one.
        path: The file to write.

    Raises:
        RuntimeError: The exporter fell back to another opset.
    """
    net = nets.build(name)
    example = {
        input_name: torch.zeros(2, *shape, dtype=dtype)
        for input_name, (shape, dtype) in nets.inputs_of(net).items()
    }
    write = _export_legacy if exporter == "legacy" else _export_dynamo
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "model.onnx"
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            write(net, example, opset, raw)
        model = _without_machine(onnx.load(raw))
    onnx.checker.check_model(model, full_check=True)
    if model.opset_import[0].version != opset:
        raise RuntimeError(
            f"{name}: asked {exporter} for opset {opset}, got {model.opset_import[0].version}"
        )
    path.write_bytes(model.SerializeToString(deterministic=True))


def record(name: str, folder: Path) -> None:
    """Write `NAME.npz`, computed by PyTorch in f64.

    It holds inputs `x`, their `logits`, and `grad/PARAMETER` of the loss sum(logits**2) / 2.

    Args:
        name: A key of `nets.NETS`.
        folder: Where the file goes.
    """
    net = nets.build(name).double()
    x = torch.rand(SAMPLES, *net.example_shape, generator=torch.Generator().manual_seed(1)).double()
    logits = net(x)
    (logits**2).sum().div(2).backward()
    arrays = {f"grad/{key}": value.grad.numpy() for key, value in net.named_parameters()}
    np.savez(folder / f"{name}.npz", x=x.numpy(), logits=logits.detach().numpy(), **arrays)


def export_matrix(folder: Path) -> None:
    """Write the small networks for every exporter and opset, with recorded inputs and outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TINY:
        for opset in LEGACY_OPSETS:
            export(name, "legacy", opset, folder / f"{name}_legacy_opset{opset}.onnx")
        for opset in DYNAMO_OPSETS:
            export(name, "dynamo", opset, folder / f"{name}_dynamo_opset{opset}.onnx")
        record(name, folder)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder of the kept files (default: models/)"
    )
    parser.add_argument(
        "--matrix", type=Path, metavar="FOLDER", help="write only the opset matrix, into FOLDER"
    )
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.setdefault("TORCH_LOGS", "-all")
    if options.matrix is not None:
        export_matrix(options.matrix)
        return
    for name, exporter, opset, stem in KEPT:
        export(name, exporter, opset, options.out / f"{stem}.onnx")
    export_matrix(options.out / "matrix")


if __name__ == "__main__":
    main()
