"""`load`: the way in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.dims import previews, unbound
from tapeout.frontend.onnx.importer import import_once
from tapeout.frontend.onnx.read import read_model
from tapeout.frontend.onnx.session import Imported, Options, Session
from tapeout.ir.modes import Modes
from tapeout.support.errors import BudgetError, OnnxImportError, ShapeError, UnsupportedOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import ArrayLike

    from tapeout.frontend.onnx.weights import Trainable
    from tapeout.ir.graph import Graph
    from tapeout.ir.modes import Mode


def load(
    model: str | Path | bytes | onnx.ModelProto,
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    values: Mapping[str, ArrayLike] | None = None,
    trainable: Trainable = "*",
    mode: Mode | Modes = "train",
) -> Graph:
    """Import an ONNX model.

    Args:
        model: A path, the bytes of a file, or a message. External data must lie in plain files inside
            the folder of the model.
        dims: Sizes for named dimensions. An input dimension without a name is called `input_axis`.
            Those that are not bound stand at preview numbers; `Graph.bind` imports anew.
        shapes: Sizes by input name; None leaves a size as it is.
        values: Inputs to replace by constants, because they decide a shape, an axis or a number.
        trainable: Which parameters training may change: a glob, a list of globs of which the last
            that matches decides (`!` negates), or a function of the name.
        mode: How Dropout and its like behave: `train`, `eval`, `as-exported`, or modes by glob of
            the node's name.

    Returns:
        The graph. Parameters keep the names of their initializers, outputs and inputs theirs.

    Raises:
        OnnxImportError: The file is damaged, breaks the rules, or a shape depends on data.
        UnsupportedOperator: It holds operators that are not imported; all are named.
        ShapeError: Shapes do not fit.
        OptionError: An option names something that the model does not have.
        BudgetError: The model is beyond all measure.
    """
    options = Options(dims or {}, shapes or {}, values or {}, trainable, mode)
    session = Session(read_model(model), options)
    session.check_supported()
    graph = import_session(session)
    if not isinstance(mode, Modes):
        session.check_modes(mode)
    return with_modes(graph, session)


def with_modes(graph: Graph, session: Session) -> Graph:
    """Return a graph of the session that knows itself in inference mode, and in any other."""
    if not session.has_modes:
        return graph

    def in_mode(mode: Mode) -> Graph:
        other = session.in_mode(mode)
        made = import_session(other)
        other.check_modes(mode)
        return with_modes(made, other)

    def inferring() -> Graph:
        return import_session(session.in_mode("eval"))

    return replace(
        graph, modes=in_mode, evaluation=None if session.modes.is_inference else inferring
    )


def import_session(session: Session) -> Graph:
    """Return the graph of a session at preview numbers, or as it is when everything is bound."""
    names = unbound(session.inputs)

    def bound(dims: Mapping[str, int]) -> Graph:
        numbers = {n: dims[n] for n in names}
        graph = import_once(session, numbers, named=False)
        options = replace(session.options, dims={**session.options.dims, **numbers})
        return replace(graph, origin=session.origin, imported=Imported(session.file, options))

    if not names:
        return bound({})
    first: Exception | None = None
    for preview in previews(names):
        try:
            graph = import_once(session, preview, named=True)
        except UnsupportedOperator:
            raise
        except (ShapeError, OnnxImportError, BudgetError) as error:
            first = first or error
            continue
        imported = Imported(session.file, session.options)
        return replace(graph, source=bound, origin=session.origin, imported=imported)
    assert isinstance(first, ShapeError | OnnxImportError | BudgetError)
    listed = ", ".join(f"{n!r}: ..." for n in names)
    hint = first.hint or f"it may need true sizes: dims={{{listed}}}"
    raise type(first)(first.message, where=first.where, hint=hint) from first
