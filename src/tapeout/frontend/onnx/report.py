"""What can be imported and differentiated, for each node, and everything that stands in the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.dims import previews, unbound
from tapeout.frontend.onnx.folded import REMEDY, losses, softmax_outputs, still_dropouts
from tapeout.frontend.onnx.functions import node_key
from tapeout.frontend.onnx.importer import NotImported, NotReached, import_once
from tapeout.frontend.onnx.path import GradientPath
from tapeout.frontend.onnx.read import read_model
from tapeout.frontend.onnx.session import (
    BUILT_IN,
    Options,
    Session,
    node_name,
    unsupported,
    unsupported_lines,
)
from tapeout.support.errors import TapeoutError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import ArrayLike

    from tapeout.frontend.onnx.weights import Trainable
    from tapeout.ir.graph import Graph
    from tapeout.ir.modes import Mode

Problems = dict[str, TapeoutError]


@dataclass(frozen=True)
class NodeReport:
    """One node of the model's graph.

    Attributes:
        name: The node.
        op: Its operator, with the domain if it is not ai.onnx.
        supported: Whether it was imported.
        gradient: `yes`; `no` when nothing that trains lies behind it; `stops` when its results are no
            floats; `zero` or `none` when its operation has no useful gradient.
        reason: Why it is not supported, or why no gradient passes.
    """

    name: str
    op: str
    supported: bool
    gradient: str
    reason: str = ""


@dataclass(frozen=True)
class ParameterReport:
    """One parameter.

    Attributes:
        name: As in the file.
        type: Element type and shape.
        trainable: Whether training may change it.
        reached: Whether a gradient flows from a float output to it.
    """

    name: str
    type: str
    trainable: bool
    reached: bool


@dataclass(frozen=True)
class Report:
    """What a check of a model found.

    Attributes:
        file: The model.
        opset: Version of the operator set.
        producer: What wrote the file.
        dims: Unbound dimensions and the numbers that they were looked at with.
        inputs: Types by name.
        outputs: Types by name.
        nodes: In the order of the file.
        parameters: In the order of the file.
        problems: Everything that stands in the way of import, one line each.
        warnings: What is legal and probably not meant.
        graph: What was imported; without the nodes that could not be.
    """

    file: str
    opset: int
    producer: str
    dims: Mapping[str, int]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    nodes: Sequence[NodeReport]
    parameters: Sequence[ParameterReport]
    problems: Sequence[str]
    warnings: Sequence[str]
    graph: Graph | None

    @property
    def ok(self) -> bool:
        """Whether the model can be imported and every trainable parameter gets a gradient."""
        return not self.problems and all(p.reached for p in self.parameters if p.trainable)


def report(
    model: str | Path | bytes | onnx.ModelProto,
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    values: Mapping[str, ArrayLike] | None = None,
    trainable: Trainable = "*",
    mode: Mode = "train",
) -> Report:
    """Look at a whole model and tell of all problems at once.

    Args:
        model: As for `load`, and so are the others.
        dims: Sizes for named dimensions.
        shapes: Sizes by input name.
        values: Inputs to replace by constants.
        trainable: Which parameters training may change.
        mode: How Dropout and its like behave.

    Raises:
        OnnxImportError: The file itself cannot be read, or breaks the rules as a whole.
        OptionError: An option names something that the model does not have.
    """
    options = Options(dims or {}, shapes or {}, values or {}, trainable, mode)
    session = Session(read_model(model), options)
    graph, used, problems = _import(session)
    path = GradientPath(graph)
    proto = session.file.proto
    return Report(
        file=session.file.name,
        opset=session.file.opset,
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        dims=used,
        inputs={v.name: v.type.text for v in graph.inputs},
        outputs={name: v.type.text for name, v in graph.outputs},
        nodes=[_node(node, problems, path, session) for node in proto.graph.node],
        parameters=[
            ParameterReport(v.name, str(v.type), v.trainable, path.reaches(v.value))
            for v in graph.parameters.values()
        ],
        problems=_told(problems, session),
        warnings=_warnings(session, graph, path),
        graph=graph,
    )


def _import(session: Session) -> tuple[Graph, dict[str, int], Problems]:
    """Return the graph at the preview numbers with the fewest problems, those numbers, the problems by node."""
    best: tuple[Graph, dict[str, int], Problems] | None = None
    for dims in previews(unbound(session.inputs)):
        problems: Problems = {}

        def tell(node: onnx.NodeProto, error: TapeoutError, to: Problems = problems) -> None:
            to[node_name(node)] = error

        graph = import_once(session, dims, named=True, on_problem=tell)
        if best is None or len(problems) < len(best[2]):
            best = graph, dims, problems
        if not problems or unsupported(session):
            break  # other numbers would not help
    assert best is not None
    return best


def _told(problems: Problems, session: Session) -> list[str]:
    """Return a line for each operator and for each other problem, and one for all nodes behind them."""
    lines = [f"not supported: {line}" for line in unsupported_lines(session)]
    others = [e for e in problems.values() if not isinstance(e, NotImported | NotReached)]
    lines += [str(e) for e in others]
    behind = sum(isinstance(e, NotReached) for e in problems.values())
    return [*lines, f"nodes behind these that were not looked at: {behind}"] if behind else lines


def _node(
    node: onnx.NodeProto, problems: Problems, path: GradientPath, session: Session
) -> NodeReport:
    name = node_name(node)
    op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    if name in problems:
        return NodeReport(name, op, supported=False, gradient="no", reason=str(problems[name]))
    inside = node_key(node) in session.functions or node.op_type in BUILT_IN
    gradient, reason = path.through(name, inside=inside)
    return NodeReport(name, op, supported=True, gradient=gradient, reason=reason)


def _warnings(session: Session, graph: Graph, path: GradientPath) -> list[str]:
    found = []
    lost = losses(session)
    if lost:
        lines = "".join(f"\n    {line}" for line in lost)
        found.append(f"an exporter has optimised this file for inference:{lines}\n    {REMEDY}")
    still = still_dropouts(session)
    if still:
        found.append(
            f"{len(still)} dropouts were exported in evaluation form ({', '.join(still[:4])}) and stay the identity in every "
            "mode: export from module.train(), or with tapeout.export_torch"
        )
    softmax = softmax_outputs(session)
    if softmax:
        found.append(
            f"output {', '.join(softmax)} is a softmax: export the scores before it. losses.cross_entropy looks through "
            "it, other losses do not"
        )
    if not any(v.trainable for v in graph.parameters.values()):
        found.append("no parameter trains")
    cut = [v.name for v in graph.parameters.values() if v.trainable and not path.reaches(v.value)]
    if cut:
        shown = ", ".join(cut[:4]) + (" ..." if len(cut) > 4 else "")
        found.append(f"no gradient reaches {len(cut)} trainable parameters: {shown}")
    unused = [
        s.name
        for s in session.weights.stored.values()
        if s.name in session.weights.trainable and s.name not in graph.parameters
    ]
    if unused:
        found.append(f"parameters that no output depends on: {', '.join(unused[:8])}")
    return found
