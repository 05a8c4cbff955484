"""Writes a case's module as ONNX, by either exporter."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests.torch_matrix.case import EXPORTED_BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from tests.torch_matrix.case import Case, Variant

SEED = 20261124
SPREAD = 0.1


class ExportFailed(Exception):
    """PyTorch itself could not export, or wrote a file that is not the module."""


@dataclass(frozen=True)
class Exported:
    """A file, and what a run needs to know of it.

    Attributes:
        data: The file.
        inputs: Names of the arguments.
        outputs: Names of the float results.
        dynamic: Whether the batch is open.
        scalars: Parameters of rank 0, which are constants in a file unless they are named.
    """

    data: bytes
    inputs: list[str]
    outputs: list[str]
    dynamic: bool
    scalars: list[str]


def build(case: Case) -> nn.Module:
    """Return the module with weights of its own everywhere: no ones, zeros or equal tensors are left."""
    torch.manual_seed(SEED)
    module = case.build()
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(SPREAD * torch.randn(p.shape, generator=generator))
        for name, b in module.named_buffers():
            if name.endswith("running_mean"):
                b.add_(SPREAD * torch.randn(b.shape, generator=generator))
            elif name.endswith("running_var"):
                b.add_(torch.rand(b.shape, generator=generator))
    return module.train(case.train)


def sample(case: Case, batch: int) -> tuple[torch.Tensor, ...]:
    """Return arguments."""
    generator = torch.Generator().manual_seed(batch)
    return tuple(feed.tensor(batch, generator) for feed in case.feeds)


def flat(results: Any) -> list[torch.Tensor]:
    """Return the tensors of what a module returned, in order."""
    if isinstance(results, torch.Tensor):
        return [results]
    if isinstance(results, dict):
        results = list(results.values())
    return [] if results is None else [t for r in results for t in flat(r)]


def export(case: Case, variant: Variant, module: nn.Module) -> Exported:
    """Export; an open batch that the exporter cannot keep is closed.

    Raises:
        ExportFailed: With the exporter's reason.
    """
    args = sample(case, EXPORTED_BATCH)
    with torch.no_grad():
        results = flat(copy.deepcopy(module)(*args))
    names = [f"x{i}" for i in range(len(args))]
    outputs = [f"y{i}" for i in range(len(results))]
    dynamic = variant.dynamic and any(feed.batch_axis is not None for feed in case.feeds)
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "model.onnx"
        while True:
            try:
                # The newer exporter traces some attention that records gradients as a kernel that it cannot take; the older
                # one that which records none.
                with torch.set_grad_enabled(variant.exporter == "legacy"):
                    _write(
                        copy.deepcopy(module), args, path, case, variant, names, outputs, dynamic
                    )
                break
            except Exception as error:
                if not dynamic:
                    raise ExportFailed(reason(error)) from error
                dynamic = False
        data = path.read_bytes()
    kept = [name for name, t in zip(outputs, results, strict=True) if t.is_floating_point()]
    scalars = [n for n, p in module.named_parameters() if not p.dim()]
    return Exported(data, names, kept, dynamic, scalars)


def _write(
    module: nn.Module,
    args: tuple[torch.Tensor, ...],
    path: Path,
    case: Case,
    variant: Variant,
    names: Sequence[str],
    outputs: Sequence[str],
    dynamic: bool,
) -> None:
    axes = [feed.batch_axis for feed in case.feeds]
    if variant.exporter == "legacy":
        mode = torch.onnx.TrainingMode
        torch.onnx.export(
            module,
            args,
            path,
            dynamo=False,
            opset_version=variant.opset,
            input_names=list(names),
            output_names=list(outputs),
            do_constant_folding=variant.folds,
            training=mode.EVAL if variant.folds or not case.train else mode.TRAINING,
            dynamic_axes={n: {a: "N"} for n, a in zip(names, axes, strict=True) if a is not None}
            if dynamic
            else None,
        )
        return
    batch = torch.export.Dim("N")
    torch.onnx.export(
        module,
        args,
        path,
        dynamo=True,
        optimize=variant.folds,
        external_data=False,
        verbose=False,
        opset_version=variant.opset,
        input_names=list(names),
        output_names=list(outputs),
        dynamic_shapes=tuple({} if a is None else {a: batch} for a in axes) if dynamic else None,
    )


@contextlib.contextmanager
def quiet() -> Any:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def reason(error: BaseException) -> str:
    """Return one line that says what went wrong: the innermost cause."""
    while error.__cause__ is not None or (
        error.__context__ is not None and not error.__suppress_context__
    ):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:240]
