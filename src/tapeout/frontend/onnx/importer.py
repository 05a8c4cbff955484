"""One import: from the nodes of a model to a graph, for one binding of the named dimensions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx import tensors
from tapeout.frontend.onnx.bodies import body_of
from tapeout.frontend.onnx.call import Call
from tapeout.frontend.onnx.chosen import branches_of, choose
from tapeout.frontend.onnx.dims import input_type
from tapeout.frontend.onnx.functions import LIMIT_DEPTH, node_key
from tapeout.frontend.onnx.known import DecidesShape, Known
from tapeout.frontend.onnx.listed import Held
from tapeout.frontend.onnx.order import in_order
from tapeout.frontend.onnx.read import LIMIT_NODES
from tapeout.frontend.onnx.registry import Version, find
from tapeout.frontend.onnx.session import node_name
from tapeout.frontend.onnx.unrolled import WITH_BODY, Site
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, i64
from tapeout.ir.graph import Graph, Node, Value, Variable
from tapeout.ir.type import TensorType
from tapeout.ops.movement import Windows
from tapeout.ops.sym import Sym, constant, random_bits
from tapeout.support.errors import (
    BudgetError,
    OnnxImportError,
    TapeoutError,
    UnsupportedOperator,
    nearest,
)
from tapeout.support.loc import Loc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

    from tapeout.frontend.onnx.session import Session
    from tapeout.ir.op import Op

LIMIT_VALUE_BYTES = 1 << 36
"""The largest value that a graph may hold."""

LIMIT_RANK = 32
"""The most dimensions that a value may have."""

Item = Sym | Held
"""What a name stands for: a value of the graph, or a sequence or an optional of such."""

Problem = Callable[["onnx.NodeProto", TapeoutError], None]


class NotImported(UnsupportedOperator):
    """A node has an operator that is not imported at all."""


class NotReached(OnnxImportError):
    """A node was not looked at, because one before it could not be imported."""


@dataclass
class Frame:
    """The names that a list of nodes sees: of the model's graph, of a function or of a branch.

    Attributes:
        values: What each name stands for; None for the result of a node that failed.
        opset: Version of the operator set.
        scope: Prefix of node names.
        depth: How many frames stand around this one.
        outer: Where a branch looks for names that it does not define.
        attributes: Those of the call of a function.
    """

    values: dict[str, Item | None]
    opset: int
    scope: str = ""
    depth: int = 0
    outer: Frame | None = None
    attributes: Mapping[str, onnx.AttributeProto] = field(default_factory=dict)


class LimitedBuilder(Builder):
    """A builder that refuses values and graphs beyond all measure before anything is allocated."""

    def emit(self, op: Op, *operands: Value, loc: Loc | None = None) -> tuple[Value, ...]:
        """Append a node and return its results.

        Raises:
            BudgetError: A result, or the graph, is too large.
        """
        results = super().emit(op, *operands, loc=loc)
        # Windows are read where they lie; no buffer of their size is ever needed.
        limit = LIMIT_VALUE_BYTES << (16 if isinstance(op, Windows) else 0)
        for r in results:
            if r.type.bytes > limit:
                text = f"{op.name} gives {r.type}: {r.type.bytes} bytes, the limit is {limit}"
                raise BudgetError(text, where=str(self.loc))
            if r.type.rank > LIMIT_RANK:
                text = f"{op.name} gives rank {r.type.rank}, the limit is {LIMIT_RANK}"
                raise BudgetError(text, where=str(self.loc))
        if len(self.nodes) > 8 * LIMIT_NODES:
            raise BudgetError(f"more than {8 * LIMIT_NODES} operations", where=str(self.loc))
        return results


class Randomness:
    """Random bits keyed by the model's seed, the step, and the name of the node that asks."""

    def __init__(self, session: Session, builder: Builder) -> None:
        """Declare nothing before the first bits are asked for."""
        self._session, self._builder = session, builder
        self._sources: tuple[Sym, Sym] | None = None

    def bits(self, stream: str, shape: Sequence[int]) -> Sym:
        """Return u32 random bits, another sequence for every stream name and every step."""
        if self._sources is None:
            self._sources = self._declare()
        number = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4], "little")
        return random_bits(*self._sources, number, shape)

    def _declare(self) -> tuple[Sym, Sym]:
        zero = np.zeros((), np.int64)
        scalar = TensorType(i64, ())
        seed = self._session.own_variable(Variable("rng.seed", scalar, "hyper", False, zero))
        step = self._session.own_variable(Variable("rng.step", scalar, "state", False, zero))
        seed_sym, step_sym = (Sym(self._builder, self._builder.adopt(v)) for v in (seed, step))
        self._builder.set_update("rng.step", (step_sym + 1).value)
        return seed_sym, step_sym


class NoRandomness:
    """Stands in the bodies of operations over time, whose rounds would all draw the same."""

    def bits(self, stream: str, shape: Sequence[int]) -> Sym:
        """Refuse."""
        raise UnsupportedOperator(f"random numbers in the body of a loop over time: {stream}")


class Importer:
    """Imports a model for one binding.

    Args:
        session: The model.
        dims: A number for every named dimension.
        named: Whether sizes remember the names (a preview) or are plain numbers (a binding).
        on_problem: Is told of a node that cannot be imported; without it, the first one is raised.
    """

    def __init__(
        self,
        session: Session,
        dims: Mapping[str, int],
        *,
        named: bool,
        on_problem: Problem | None = None,
    ) -> None:
        """Start an empty graph."""
        self.session, self.file = session, session.file
        self.dims, self.named, self.on_problem = dims, named, on_problem
        self.builder: Builder = LimitedBuilder(self.file.proto.graph.name or "main")
        self.known = Known(session.weights.trainable)
        self._short = self.file.short
        self.random: Randomness | NoRandomness = Randomness(session, self.builder)

    def graph(self) -> Graph:
        """Return the graph."""
        proto = self.file.proto.graph
        frame = Frame({}, self.file.opset)
        self._inputs(frame)
        defined = {**dict.fromkeys(self.session.weights.stored), **dict.fromkeys(frame.values)}
        self._run(in_order(proto.node, defined, self.file.name), frame)
        for output in proto.output:
            found = self._lookup(output.name, frame)
            if isinstance(found, Sym):
                self.builder.set_output(output.name, found.value)
            elif found is not None:
                text = f"output {output.name!r} is {found.type}, only tensors can be given back"
                raise UnsupportedOperator(text, where=self.file.name)
            elif output.name not in frame.values:
                hint = nearest(output.name, frame.values)
                text = f"output {output.name!r} is made by no node"
                raise OnnxImportError(text, where=self.file.name, hint=hint)
        return self._pruned(self.builder.graph(self.dims if self.named else None))

    def _inputs(self, frame: Frame) -> None:
        for declared in self.session.inputs:
            made = input_type(declared, self.dims, self.named)
            frame.values[declared.name] = Sym(
                self.builder, self.builder.add_input(declared.name, made)
            )
        for name, array in self.session.values.items():
            frame.values[name] = constant(self.builder, array)

    def _pruned(self, graph: Graph) -> Graph:
        """Drop the nodes and variables that nothing reads: shape arithmetic, after it was computed."""
        needed = set(graph.results)
        kept: list[Node] = []
        for node in reversed(graph.nodes):
            if any(r in needed for r in node.results):
                kept.append(node)
                needed.update(node.operands)
        position = {name: i for i, name in enumerate(self.session.weights.stored)}
        variables = sorted(
            (v for v in graph.variables if v.value in needed),
            key=lambda v: position.get(v.name, len(position)),
        )
        return replace(graph, nodes=tuple(reversed(kept)), variables=tuple(variables))

    # -- names ------------------------------------------------------------------------------------

    def _lookup(self, name: str, frame: Frame) -> Item | None:
        """Return what a name stands for; None when the node that makes it failed."""
        here: Frame | None = frame
        while here is not None:
            if name in here.values:
                return here.values[name]
            if here.depth == 0 and name in self.session.weights.stored:
                made = here.values[name] = self._stored(name)
                return made
            here = here.outer
        return None

    def _is_defined(self, name: str, frame: Frame) -> bool:
        here: Frame | None = frame
        while here is not None:
            if name in here.values or (here.depth == 0 and name in self.session.weights.stored):
                return True
            here = here.outer
        return False

    def _stored(self, name: str) -> Sym:
        if self.session.is_variable(name):
            return Sym(self.builder, self.builder.adopt(self.session.variable(name)))
        return constant(self.builder, self.session.tensor(name))

    # -- nodes ------------------------------------------------------------------------------------

    def _run(self, nodes: Sequence[onnx.NodeProto], frame: Frame) -> None:
        for node in nodes:
            try:
                results = self._node(node, frame)
            except TapeoutError as error:
                if self.on_problem is None:
                    raise
                self.on_problem(node, error)
                results = (None,) * len(node.output)
            for name, made in zip(node.output, results, strict=False):
                if name:
                    frame.values[name] = made

    def _node(self, node: onnx.NodeProto, frame: Frame) -> Sequence[Item | None]:
        label = frame.scope + node_name(node)
        place = f"{self.file.name}:{label} ({node.op_type})"
        operands = self._operands(node, frame, place)
        with self.builder.at(Loc(self._short, label)):
            function = self._called(node)
            if function is not None:
                return self._function(node, function, operands, frame, label)
            if node.op_type == "If" and node.domain in ("", "ai.onnx"):
                return self._branch(node, operands, frame, label, place)
            if node.op_type in WITH_BODY and node.domain in ("", "ai.onnx"):
                site = Site(self, node, operands, frame, label, place)
                return WITH_BODY[node.op_type](site)
            if (
                node.op_type == "Constant"
                and frame.depth == 0
                and node.output[0] in self.session.weights.stored
            ):
                return (self._stored(node.output[0]),)
            return self._operator(node, operands, frame, label, place)

    def _called(self, node: onnx.NodeProto) -> onnx.FunctionProto | None:
        functions = self.session.functions
        return functions.get(node_key(node)) if functions else None

    def _operands(self, node: onnx.NodeProto, frame: Frame, place: str) -> list[Item | None]:
        found: list[Item | None] = []
        for name in node.input:
            if name and not self._is_defined(name, frame):
                raise OnnxImportError(f"reads {name!r}, which nothing makes", where=place)
            made = self._lookup(name, frame) if name else None
            if name and made is None:
                raise NotReached(f"not looked at: {name!r} could not be imported", where=place)
            found.append(made)
        return found

    def _operator(
        self,
        node: onnx.NodeProto,
        operands: list[Item | None],
        frame: Frame,
        label: str,
        place: str,
    ) -> Sequence[Item | None]:
        version = find(node.op_type, frame.opset) if node.domain in ("", "ai.onnx") else None
        if version is None:
            whole = _with_attributes(node, _attributes(node, frame, place))
            function = body_of(whole, frame.opset, operands)
            if function is not None:
                return self._function(whole, function, operands, frame, label)
            text = (
                f"{node.domain or 'ai.onnx'}.{node.op_type} of opset {frame.opset} is not supported"
            )
            raise NotImported(text, where=place)
        call = Call(
            op_type=node.op_type,
            opset=frame.opset,
            place=place,
            outputs=tuple(node.output),
            key=frame.scope + (node.output[0] if node.output else node.name),
            mode=self.session.mode_of(label, node),
            attributes=_attributes(node, frame, place),
            builder=self.builder,
            known=self.known,
            random=self.random,
            folder=self.file.folder,
        )
        results = _guarded(version, call, _fitted(version, operands, call))
        _check_results(call, results)
        return results

    def _function(
        self,
        node: onnx.NodeProto,
        function: onnx.FunctionProto,
        operands: list[Item | None],
        frame: Frame,
        label: str,
    ) -> Sequence[Item | None]:
        given = _attributes(node, frame, label)
        defaults = {a.name: a for a in function.attribute_proto}
        versions = {
            ("" if o.domain == "ai.onnx" else o.domain): o.version for o in function.opset_import
        }
        names = list(function.input)
        if len(operands) > len(names):
            text = f"has {len(operands)} operands, the function takes {len(names)}"
            raise OnnxImportError(text, where=f"{self.file.name}:{label}")
        padded = operands + [None] * (len(names) - len(operands))
        inner = Frame(
            # A missing optional operand is an empty name inside, which `_operands` reads as None.
            {n: o for n, o in zip(names, padded, strict=True) if o is not None},
            versions.get("", frame.opset),
            f"{label}/",
            frame.depth + 1,
            None,
            {**defaults, **given},
        )
        missing = {n for n, o in zip(names, padded, strict=True) if o is None}
        self._run(_without(function.node, missing), inner)
        return [self._result(name, inner, label) for name in function.output]

    def _branch(
        self,
        node: onnx.NodeProto,
        operands: list[Item | None],
        frame: Frame,
        label: str,
        place: str,
    ) -> Sequence[Item | None]:
        """Write out the branch that the condition chooses; both, if only the data tell which."""
        condition = operands[0] if operands else None
        if not isinstance(condition, Sym):
            raise OnnxImportError("has no condition", where=place)
        if condition.type != TensorType(bool_, condition.shape) or condition.type.size != 1:
            text = f"the condition is {condition.type}, one bool is expected"
            raise OnnxImportError(text, where=place)
        branches = branches_of(node, place)
        known = self.known.get(condition.value)
        if known is None:
            return choose(self, condition, branches, frame, label, place)
        side = "then" if known.any() else "else"
        return self.inside(branches[side], {}, frame, f"{label}/{side}/", place)

    def seen(self, name: str, frame: Frame, place: str) -> Item:
        """Return what a name stands for.

        Raises:
            OnnxImportError: Nothing makes it, or what makes it could not be imported.
        """
        found = self._lookup(name, frame)
        if found is None:
            known = self._is_defined(name, frame)
            text = f"{name!r} could not be imported" if known else f"nothing makes {name!r}"
            raise (NotReached if known else OnnxImportError)(text, where=place)
        return found

    @contextmanager
    def within(self, builder: Builder) -> Iterator[Builder]:
        """Append nodes to the body of an operation inside a `with` block."""
        before = self.builder, self.random
        self.builder, self.random = builder, NoRandomness()
        builder.loc = before[0].loc
        try:
            yield builder
        finally:
            self.builder, self.random = before

    def inside(
        self,
        graph: onnx.GraphProto,
        values: Mapping[str, Item | None],
        frame: Frame,
        scope: str,
        place: str,
    ) -> list[Item | None]:
        """Write out the graph of a branch or of the body of a loop, and return its results.

        Args:
            graph: What to write out.
            values: What its operands stand for.
            frame: The names around it.
            scope: Prefix of the names of its nodes.
            place: The node that it belongs to.

        Raises:
            OnnxImportError: It is nested too deep, or gives back what no node makes.
        """
        if frame.depth >= 2 * LIMIT_DEPTH:
            raise OnnxImportError("functions and branches are nested too deep", where=place)
        inner = Frame(dict(values), frame.opset, scope, frame.depth + 1, frame, frame.attributes)
        for tensor in graph.initializer:
            where = f"{self.file.name}: tensor {tensor.name!r}"
            inner.values[tensor.name] = constant(
                self.builder, tensors.decode(tensor, where, self.file.folder)
            )
        self._run(graph.node, inner)
        return [self._result(o.name, inner, scope.rstrip("/")) for o in graph.output]

    def _result(self, name: str, frame: Frame, label: str) -> Item | None:
        if not self._is_defined(name, frame):
            text = f"result {name!r} is made by no node"
            raise OnnxImportError(text, where=f"{self.file.name}:{label}")
        return self._lookup(name, frame)


def _attributes(node: onnx.NodeProto, frame: Frame, place: str) -> dict[str, onnx.AttributeProto]:
    """Return the node's attributes, those that name one of the surrounding function replaced by it."""
    found: dict[str, onnx.AttributeProto] = {}
    for a in node.attribute:
        if a.name in found:
            raise OnnxImportError(f"attribute {a.name!r} is given twice", where=place)
        if not a.ref_attr_name:
            found[a.name] = a
        elif a.ref_attr_name in frame.attributes:
            found[a.name] = frame.attributes[a.ref_attr_name]
    return found


def _with_attributes(
    node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto]
) -> onnx.NodeProto:
    """Return a node whose attributes name none of a surrounding function."""
    if not any(a.ref_attr_name for a in node.attribute):
        return node
    made = type(node)()
    made.CopyFrom(node)
    del made.attribute[:]
    for name, a in attributes.items():
        made.attribute.add().CopyFrom(a)
        made.attribute[-1].name = name
    return made


def _fitted(version: Version, operands: list[Item | None], call: Call) -> list[Item | None]:
    """Return the operands for the function's signature; trailing missing ones are left out."""
    while operands and operands[-1] is None:
        operands = operands[:-1]
    if len(operands) > len(version.operands) and not version.variadic:
        call.fail(f"has {len(operands)} operands, at most {len(version.operands)} are expected")
    for i, name in enumerate(version.operands[: version.required]):
        if i >= len(operands) or operands[i] is None:
            call.fail(f"operand {i} ({name}) is missing")
    if not version.holds:
        for i, o in enumerate(operands):
            if o is not None and not isinstance(o, Sym):
                call.fail(f"operand {i} is {o.type}, a tensor is expected")
    if version.variadic and any(o is None for o in operands[version.required :]):
        call.fail("one of the operands is missing")
    return operands


def _guarded(version: Version, call: Call, operands: list[Item | None]) -> tuple[Item | None, ...]:
    """Run the operator's function; whatever goes wrong becomes an error that names the node."""
    try:
        results = version(call, *operands)
    except DecidesShape:
        raise
    except TapeoutError as error:
        # Type rules know the node by its place in the graph; users know it by its file and name.
        raise type(error)(error.message, where=call.place, hint=error.hint) from error
    except Exception as error:
        types = ", ".join(str(o.type) if o is not None else "-" for o in operands)
        text = f"cannot be imported with operands ({types}): {error or type(error).__name__}"
        raise OnnxImportError(text, where=call.place) from error
    unread = call.unread()
    if unread:
        call.unsupported(f"attribute {unread[0]!r} is not understood")
    return results


def _check_results(call: Call, results: tuple[Item | None, ...]) -> None:
    for i, name in enumerate(call.outputs):
        if name and (i >= len(results) or results[i] is None):
            call.unsupported(f"result {i} ({name!r}) is not supported")


def _without(nodes: Sequence[onnx.NodeProto], missing: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes of a function with the operands that the call leaves out emptied."""
    if not missing:
        return list(nodes)
    changed = []
    for node in nodes:
        if any(name in missing for name in node.input):
            copy = type(node)()
            copy.CopyFrom(node)
            copy.input[:] = ["" if name in missing else name for name in node.input]
            changed.append(copy)
        else:
            changed.append(node)
    return changed


def import_once(
    session: Session, dims: Mapping[str, int], *, named: bool, on_problem: Problem | None = None
) -> Graph:
    """Return the graph of a model for one binding; see `Importer` for the arguments.

    A stored tensor that turns out to decide a shape is a constant from then on.
    """
    while True:
        try:
            return Importer(session, dims, named=named, on_problem=on_problem).graph()
        except DecidesShape as found:
            session.make_constant(found.name)
