"""Graph to graph: gradients, vector-Jacobian, Jacobian-vector and Hessian-vector products."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.autodiff.formulas import formulas
from tapeout.autodiff.residuals import residuals
from tapeout.autodiff.reverse import backward
from tapeout.ir.build import rebuilder
from tapeout.ops.sym import Sym, constant
from tapeout.support.errors import NotDifferentiable, OptionError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value


def gradients(
    graph: Graph, of: str = "loss", wrt: str | Sequence[str] = "parameters", prefix: str = "grad/"
) -> Graph:
    """Return the graph with an output `prefix + name` for the gradient of a scalar output.

    Args:
        graph: Any graph, one that this function made included.
        of: Name of a float output with one element and no dimensions.
        wrt: Names of parameters or inputs, or `"parameters"` for all trainable ones.
        prefix: Put before each name to name the new output.

    Returns:
        The outputs of `graph`, then one gradient per name, of the shape and dtype of what it is the gradient of. A name on which
        the output does not depend gets zeros.

    Raises:
        OptionError: A name does not exist, or the output is no float scalar.
        NotDifferentiable: An operation on the way has no gradient.
    """
    return graph.then(lambda g: _gradients(g, of, wrt, prefix))


def _gradients(graph: Graph, of: str, wrt: str | Sequence[str], prefix: str) -> Graph:
    b, target = _start(graph, of)
    if target.type.rank or not target.type.dtype.is_float:
        raise OptionError(
            f"the gradient of output {of!r} is asked for, which is {target.type}; it must be a float scalar",
            hint="reduce it first, or use tapeout.vjp with a cotangent",
        )
    values = named_values(graph, wrt)
    found = backward(b, _nodes(b), {target: constant(b, 1.0, target.type.dtype)}, values.values())
    for name, value in values.items():
        b.set_output(prefix + name, _or_zeros(b, found[value], value).value)
    return _finish(b, graph)


def vjp(
    graph: Graph, of: str, wrt: str | Sequence[str] = "parameters", prefix: str = "vjp/"
) -> Graph:
    """Return the graph with an input `cotangent/<of>` and outputs `prefix + name`: cotangent times the Jacobian."""
    return graph.then(lambda g: _vjp(g, of, wrt, prefix))


def _vjp(graph: Graph, of: str, wrt: str | Sequence[str], prefix: str) -> Graph:
    b, target = _start(graph, of)
    values = named_values(graph, wrt)
    seed = Sym(b, b.add_input(f"cotangent/{of}", target.type))
    found = backward(b, _nodes(b), {target: seed}, values.values())
    for name, value in values.items():
        b.set_output(prefix + name, _or_zeros(b, found[value], value).value)
    return _finish(b, graph)


def jvp(
    graph: Graph, of: str, wrt: str | Sequence[str] = "parameters", prefix: str = "jvp/"
) -> Graph:
    """Return the graph with inputs `tangent/<name>` and the output `prefix + of`: the Jacobian times the tangents.

    The product is the transpose of the transpose: v -> J v is the gradient of <u J, v> with respect to u, which is linear in u.
    """
    return graph.then(lambda g: _jvp(g, of, wrt, prefix))


def _jvp(graph: Graph, of: str, wrt: str | Sequence[str], prefix: str) -> Graph:
    b, target = _start(graph, of)
    values = named_values(graph, wrt)
    forward = _nodes(b)
    dual = constant(b, 0.0, target.type.dtype).broadcast_to(target.type.shape)
    first = len(b.nodes)
    found = backward(b, forward, {target: dual}, values.values())
    seeds: dict[Value, Sym] = {}
    for name, value in values.items():
        tangent = Sym(b, b.add_input(f"tangent/{name}", value.type))
        if found[value] is not None:
            key = found[value].value  # type: ignore[union-attr]
            seeds[key] = tangent if key not in seeds else seeds[key] + tangent
    product = backward(b, b.nodes[first:], seeds, [dual.value])[dual.value]
    b.set_output(prefix + of, _or_zeros(b, product, target).value)
    return _finish(b, graph)


def hvp(
    graph: Graph, of: str = "loss", wrt: str | Sequence[str] = "parameters", prefix: str = "hvp/"
) -> Graph:
    """Return the graph with inputs `tangent/<name>` and outputs `prefix + name`: the Hessian of a scalar times the tangents."""
    return graph.then(lambda g: _hvp(g, of, wrt, prefix))


def _hvp(graph: Graph, of: str, wrt: str | Sequence[str], prefix: str) -> Graph:
    mark = "\0grad/"
    with_grads = _gradients(graph, of, wrt, mark)
    b, _ = _start(with_grads, of)
    values = named_values(with_grads, wrt)
    outputs = with_grads.output
    product: Sym | None = None
    for name, value in values.items():
        tangent = Sym(b, b.add_input(f"tangent/{name}", value.type))
        part = (Sym(b, b.outputs[mark + name]) * tangent).sum()
        product = part if product is None else product + part
    assert product is not None, outputs
    found = backward(
        b, _nodes(b), {product.value: constant(b, 1.0, product.dtype)}, values.values()
    )
    for name, value in values.items():
        del b.outputs[mark + name]
        b.set_output(prefix + name, _or_zeros(b, found[value], value).value)
    return _finish(b, graph)


def named_values(graph: Graph, wrt: str | Sequence[str]) -> dict[str, Value]:
    """Return the values of parameters or inputs by name.

    Raises:
        OptionError: A name is unknown, or names something that is not float.
    """
    if wrt == "parameters":
        return {
            n: v.value for n, v in graph.parameters.items() if v.trainable and v.type.dtype.is_float
        }
    known = {**graph.input, **{n: v.value for n, v in graph.variable.items()}}
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    for name in names:
        if name not in known:
            raise OptionError(
                f"no parameter or input is called {name!r}", hint=nearest(name, known)
            )
        if not known[name].type.dtype.is_float:
            raise NotDifferentiable(f"{name!r} is {known[name].type}; only floats have gradients")
    return {n: known[n] for n in names}


def expand(graph: Graph) -> Graph:
    """Return the graph ready to be differentiated: composites without a gradient rule are formulas, scans keep residuals."""
    return residuals(formulas(graph))


def _start(graph: Graph, of: str) -> tuple[Builder, Value]:
    if of not in graph.output:
        raise OptionError(f"no output is called {of!r}", hint=nearest(of, graph.output))
    graph = expand(graph)
    b = rebuilder(graph)
    for node in graph.nodes:
        b.keep(node)
    _copy_results(b, graph, {})
    return b, graph.output[of]


def _copy_results(b: Builder, graph: Graph, new: dict[Value, Value]) -> None:
    for name, value in graph.outputs:
        b.set_output(name, new.get(value, value))
    for name, value in graph.updates:
        b.set_update(name, new.get(value, value))
    for check in graph.checks:
        b.add_check(new.get(check.bad, check.bad), check.message)


def _nodes(b: Builder) -> tuple[Node, ...]:
    return tuple(b.nodes)


def _or_zeros(b: Builder, cotangent: Sym | None, value: Value) -> Sym:
    return Sym(b, value).zeros_like() if cotangent is None else cotangent


def _finish(b: Builder, graph: Graph) -> Graph:
    made = b.graph(graph.dims)
    return replace(made, origin=graph.origin)
