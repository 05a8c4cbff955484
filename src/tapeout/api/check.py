"""Can a model be imported, differentiated and lowered? All problems at once, and what training it would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapeout.api.gradcheck import projection
from tapeout.api.load import load_onnx
from tapeout.api.stages import optimized, scheduled
from tapeout.driver.step import step_entry
from tapeout.ir.graph import Graph
from tapeout.ir.precision import Precision
from tapeout.support.errors import TapeoutError
from tapeout.training.losses import Formula
from tapeout.training.optimizers import adam

if TYPE_CHECKING:
    from tapeout.frontend.onnx.report import Report
    from tapeout.ir.precision import Choice
    from tapeout.kernel.program import Program

BATCH = 32
"""What a dimension that nothing binds is taken as for the figures."""


@dataclass
class CheckReport:
    """The answer; true when the model can be trained.

    Attributes:
        name: File or graph.
        dims: Numbers that the figures stand for.
        parameters: Elements of all parameters.
        trainable: Elements of those that train.
        flops: Floating-point operations of a training step (forward, backward, Adam).
        bytes: Bytes of the arena of such a step.
        kernels: Kernels of it.
        problems: Everything that stands in the way.
        warnings: What may surprise: frozen or unreachable parameters, a folded file.
        imported: The importer's report per node, for an ONNX file.
    """

    name: str
    dims: dict[str, int] = field(default_factory=dict)
    parameters: int = 0
    trainable: int = 0
    flops: int = 0
    bytes: int = 0
    kernels: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    imported: Report | None = None

    def __bool__(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        out: dict[str, Any] = {
            "model": self.name,
            "trainable": not self.problems,
            "dims": self.dims,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable,
            "flops": self.flops,
            "bytes": self.bytes,
            "kernels": self.kernels,
            "problems": self.problems,
            "warnings": self.warnings,
        }
        if self.imported is not None:
            out["opset"], out["producer"] = self.imported.opset, self.imported.producer
            out["inputs"], out["outputs"] = dict(self.imported.inputs), dict(self.imported.outputs)
            out["nodes"] = [vars_of(n) for n in self.imported.nodes]
            out["parameter_list"] = [vars_of(p) for p in self.imported.parameters]
        return out

    def __str__(self) -> str:
        lines = [self.name]
        if self.imported is not None:
            r = self.imported
            lines.append(
                f"  opset {r.opset}, {r.producer or 'unknown producer'}, {len(r.nodes)} nodes"
            )
            lines += [f"  input  {n}: {t}" for n, t in r.inputs.items()]
            lines += [f"  output {n}: {t}" for n, t in r.outputs.items()]
        if self.bytes:
            bound = ", ".join(f"{k}={v}" for k, v in self.dims.items())
            lines.append(f"  {self.parameters:,} parameters, {self.trainable:,} of them train")
            lines.append(
                f"  a training step{f' at {bound}' if bound else ''}: {self.flops / 1e6:,.1f} MFLOP, "
                f"{self.kernels} kernels, {self.bytes / 1e6:,.2f} MB of memory in all"
            )
        lines += [f"  warning: {w}" for w in self.warnings]
        lines += [f"  problem: {p}" for p in self.problems]
        lines.append("  can be trained" if self else "  cannot be trained")
        return "\n".join(lines)


def vars_of(record: Any) -> dict[str, Any]:
    """Return the fields of a flat record."""
    return {n: getattr(record, n) for n in record.__dataclass_fields__}


def check(
    model: Graph | str | Path | bytes,
    dims: Mapping[str, int] | None = None,
    *,
    precision: Choice | None = None,
    **options: Any,
) -> CheckReport:
    """Report whether a model can be imported, differentiated and lowered, with all problems at once.

    Args:
        model: A graph, or the path or bytes of an ONNX file.
        dims: Numbers for named dimensions; others are taken as 32.
        precision: As `Trainer` takes it; decides the figures of the training step.
        options: As for `load_onnx`: shapes, values, trainable, mode.

    Raises:
        OnnxImportError: The file is no ONNX model at all.
    """
    graph, found = _read(model, dims, options)
    if found.problems or graph is None:
        return found
    found.parameters = sum(v.type.size for v in graph.parameters.values())
    found.trainable = sum(v.type.size for v in graph.parameters.values() if v.trainable)
    found.dims = {n: (dims or {}).get(n, BATCH) for n in graph.dims}
    try:
        program = _program(graph.bind(found.dims), Precision.of(precision, "precision"))
    except TapeoutError as e:
        found.problems.append(str(e))
        return found
    found.flops = program.flops
    found.bytes, found.kernels = program.arena, len(program.kernels)
    return found


def _read(
    model: Graph | str | Path | bytes, dims: Mapping[str, int] | None, options: Mapping[str, Any]
) -> tuple[Graph | None, CheckReport]:
    if isinstance(model, Graph):
        return model, CheckReport(model.name)
    from tapeout.frontend.onnx.report import report

    r = report(model, dims=dims, **options)
    name = "model" if isinstance(model, bytes) else str(model)
    found = CheckReport(name, problems=list(r.problems), warnings=list(r.warnings), imported=r)
    if found.problems:
        return None, found
    return load_onnx(model, dims=dims, **options), found


def _program(graph: Graph, precision: Precision) -> Program:
    loss = Formula(lambda known: projection(graph, known))
    return scheduled(optimized(step_entry(graph, loss, adam(), None, None, precision)))
