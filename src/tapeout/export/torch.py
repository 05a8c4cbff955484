"""PyTorch modules written as ONNX files that train: every parameter under its own name.

PyTorch's exporter is made for inference. This sets it up for training, mends what it does to names, notes which tensors are
buffers, and holds the result against the module: a parameter that did not arrive is an error, not a surprise later.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.support.errors import CompileError, DataError, OptionError

if TYPE_CHECKING:
    import torch

TRAINABLE = "tapeout.trainable"
"""Key of the file's metadata that says what trains, where `load_onnx` cannot see it: by name, true or false, as JSON."""

OPSETS = range(18, 27)
_BATCH_NORM = ("running_mean", "running_var")
_LARGE = 1 << 30
"""Bytes of weights from which they are written to a file of their own; a file of protobuf ends at 2 GiB."""

_MARKS = ("pkg.torch.onnx.stack_trace",)
"""What the exporter notes about the exporting machine."""


@dataclass
class TorchExport:
    """What was written.

    Attributes:
        path: The file.
        opset: Version of the operator set.
        inputs: Shapes by name; a named dimension stays open.
        outputs: Shapes by name.
        parameters: Names of the parameters, all of them checked.
        frozen: Those of them that the module does not train (`requires_grad=False`); `load_onnx` does neither unless
            `trainable` names them.
        buffers: Names of the buffers, of which the same is true.
        unused: Parameters of the module that no output depends on; the file does not hold them.
        notes: What else was decided, one line each.
    """

    path: Path
    opset: int
    inputs: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    outputs: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    parameters: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.path}: opset {self.opset}, {len(self.parameters)} parameters"]
        for kind, types in (("input ", self.inputs), ("output", self.outputs)):
            lines += [f"  {kind} {n}: [{', '.join(map(str, s))}]" for n, s in types.items()]
        if self.frozen:
            lines.append(f"  parameters that do not train: {_some(self.frozen)}")
        if self.buffers:
            lines.append(f"  buffers, which do not train: {_some(self.buffers)}")
        if self.unused:
            lines.append(f"  no output depends on: {_some(self.unused)}")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def export_torch(
    module: Any,
    args: Any,
    path: str | Path,
    *,
    kwargs: Mapping[str, Any] | None = None,
    batch: str | None = "N",
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = 18,
) -> TorchExport:
    """Write a PyTorch module as an ONNX file for training.

    The module is exported in training mode (dropout stays; the module's own modes are restored afterwards) by the exporter of
    `torch.export`, not optimised, so that parameters are neither folded nor transposed nor renamed.

    Args:
        module: A `torch.nn.Module`.
        args: Example arguments of `forward`: a tensor, or a tuple. The module is traced with them.
        path: The file to write. From 1 GiB of weights on they go to a second file next to it, `NAME.data`.
        kwargs: Example keyword arguments.
        batch: Name of the open batch dimension: the first axis of every tensor argument that is as long there as the first
            argument. None exports the sizes of the example.
        dynamic_shapes: As for `torch.export.export`, in place of `batch`.
        input_names: Names of the inputs; None: those of the arguments of `forward`.
        output_names: Names of the outputs; None: the keys of what `forward` returns, or `output`, or `output_0`, …
        opset: Version of the operator set, 18 to 26.

    Returns:
        What was written, with a text for people.

    Raises:
        OptionError: PyTorch is not installed, or an argument does not fit.
        CompileError: PyTorch cannot export the module, or a parameter did not arrive with its name, shape and content.
        DataError: The file cannot be written.
    """
    torch_ = _torch()
    _check_module(torch_, module, opset)
    given = _arguments(module, args, kwargs or {})
    opened = 0
    if dynamic_shapes is None and batch is not None:
        opened, dynamic_shapes = _open_batch(torch_, given, batch)
    program = _program(
        torch_,
        module,
        given,
        dynamic_shapes=dynamic_shapes,
        input_names=None if input_names is None else list(input_names),
        opset_version=opset,
    )
    made = TorchExport(Path(path), opset)
    graph = program.model.graph
    names = _Names(graph, made.notes)
    names.own_parameters(module)
    names.unlike_parameters()
    names.outputs(_output_names(torch_, program, output_names))
    if opened and batch is not None:
        names.batch(batch)
    _clean(program.model)
    _verify(module, program, made)
    scalars = [n for n, p in module.named_parameters() if n in made.parameters and not p.dim()]
    trains = {**dict.fromkeys(scalars, True), **dict.fromkeys((*made.frozen, *made.buffers), False)}
    program.model.metadata_props[TRAINABLE] = json.dumps(trains)
    made.inputs = {v.name: _shape(v) for v in graph.inputs}
    if opened:
        _check_open(made, opened)
    made.outputs = {v.name: _shape(v) for v in graph.outputs}
    _write(program, made)
    return made


# --- the call ------------------------------------------------------------------------------------------------------------


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise OptionError(
            "export_torch needs PyTorch", hint="pip install 'tapeout[torch]'"
        ) from error
    try:
        import onnxscript  # noqa: F401  (PyTorch's exporter says so too late and at length)
    except ImportError as error:
        raise OptionError(
            "PyTorch's exporter needs onnxscript", hint="pip install 'tapeout[torch]'"
        ) from error
    return torch


def _check_module(torch_: Any, module: Any, opset: int) -> None:
    if not isinstance(module, torch_.nn.Module):
        raise OptionError(f"module is a {type(module).__name__}, a torch.nn.Module is expected")
    if isinstance(module, torch_.jit.ScriptModule):
        raise OptionError(
            "module is TorchScript, which has no Python to export from",
            hint="export the nn.Module that it was made from",
        )
    if opset not in OPSETS:
        text = f"opset is {opset}, {OPSETS[0]} to {OPSETS[-1]} are expected"
        raise OptionError(text, hint="PyTorch's exporter starts at 18")


def _arguments(module: Any, args: Any, kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    """Return the example arguments by the names of `forward`."""
    given = tuple(args) if isinstance(args, tuple | list) else (args,)
    try:
        return inspect.signature(module.forward).bind(*given, **kwargs)
    except TypeError as error:
        raise OptionError(
            f"the example does not fit forward{inspect.signature(module.forward)}: {error}",
            hint="args is a tensor or a tuple of positional arguments; others go to kwargs",
        ) from None


def _open_batch(torch_: Any, given: inspect.BoundArguments, name: str) -> tuple[int, Any]:
    """Return the rows of the example, and dynamic shapes that leave them open; (0, None) where no argument has rows."""
    if not name.isidentifier():
        raise OptionError(f"batch is {name!r}; the name of a dimension is an identifier")
    tree = torch_.utils._pytree  # noqa: SLF001  (what torch.export itself takes for a tree)
    leaves = [a for a in tree.tree_leaves(dict(given.arguments)) if isinstance(a, torch_.Tensor)]
    rows = next((a.shape[0] for a in leaves if a.dim()), None)
    if rows is None:
        return 0, None
    if rows < 2:
        raise OptionError(
            f"the example has {rows} row{'' if rows == 1 else 's'}: PyTorch would fix the batch to that",
            hint="give an example of 2 rows or more, or batch=None",
        )
    size = torch_.export.Dim(name)

    def shape(leaf: Any) -> Any:
        if not isinstance(leaf, torch_.Tensor):
            return None
        return {0: size} if leaf.dim() and leaf.shape[0] == rows else {}

    return rows, {n: tree.tree_map(shape, a) for n, a in given.arguments.items()}


def _check_open(made: TorchExport, rows: int) -> None:
    """Fail when the exporter has fixed the batch all the same, which it does without a word."""
    fixed = [n for n, shape in made.inputs.items() if shape and shape[0] == rows]
    if fixed:
        raise CompileError(
            f"the module works for {rows} rows only: PyTorch has fixed the batch of {_some(fixed)}",
            hint="see where forward takes the size of the example for granted, or export with batch=None",
        )


def _program(
    torch_: Any, module: Any, given: inspect.BoundArguments, *, dynamic_shapes: Any, **options: Any
) -> Any:
    """Run PyTorch's exporter."""
    # Where gradients are recorded, some attention traces as a kernel whose result cannot be viewed as it must.
    with _in_training(module), torch_.no_grad(), _quiet():
        try:
            return torch_.onnx.export(
                module,
                given.args,
                kwargs=given.kwargs,
                dynamo=True,
                optimize=False,
                verbose=False,
                dynamic_shapes=dynamic_shapes,
                **options,
            )
        except Exception as error:  # whatever the exporter raises
            why = _reason(error)
            hint = "PyTorch's own message has more: it is the cause of this error"
            if "onstraint" in why or "pecializ" in why or "dynamic" in why.lower():
                hint = "the module fixes a size of its input: export with batch=None, or give dynamic_shapes="
            raise CompileError(
                f"PyTorch cannot export {type(module).__name__}: {why}", hint=hint
            ) from error


@contextlib.contextmanager
def _in_training(module: Any) -> Iterator[None]:
    """Put a module into training mode, and each part back into its own afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.train()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the exporter prints and logs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """Return the innermost cause on one line."""
    inner = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    return f"{type(inner).__name__}: {' '.join(lines[:3])}"[:500]


# --- names ---------------------------------------------------------------------------------------------------------------


class _Names:
    """Gives tensors and values the names that a user expects, each of them once."""

    def __init__(self, graph: Any, notes: list[str]) -> None:
        self.graph, self.notes = graph, notes

    def _values(self) -> Iterator[Any]:
        yield from self.graph.inputs
        for node in self.graph.all_nodes():
            yield from node.outputs

    def own_parameters(self, module: Any) -> None:
        """Call a tensor that is shared by its first name, as `named_parameters` does."""
        first = {id(p): n for n, p in module.named_parameters()}
        for name, p in module.named_parameters(remove_duplicate=False):
            own = first[id(p)]
            stored = self.graph.initializers
            if name == own or name not in stored or own in stored:
                continue
            value = stored.pop(name)
            value.name = own
            stored[own] = value
            self.notes.append(f"{name} is {own}, and is called so")

    def unlike_parameters(self) -> None:
        """Rename values that are called like a parameter: a file may not have both."""
        taken = {v.name for v in self._values()} | set(self.graph.initializers)
        for value in self._values():
            if value.name not in self.graph.initializers:
                continue
            old = value.name
            value.name = _unique(f"{old}_value", taken)
            if value in self.graph.inputs:
                self.notes.append(f"input {old} is called {value.name}: {old} is a parameter")

    def outputs(self, wanted: Sequence[str]) -> None:
        """Name the outputs."""
        graph = self.graph
        if len(wanted) != len(graph.outputs):
            raise OptionError(
                f"output_names has {len(wanted)} names, the module returns {len(graph.outputs)} tensors"
            )
        if len({id(v) for v in graph.outputs}) != len(graph.outputs):
            raise CompileError(
                "the module returns one tensor twice, which ONNX cannot say",
                hint="return it once, or a clone",
            )
        mine = {id(v) for v in graph.outputs}
        taken = {v.name for v in self._values() if id(v) not in mine} | set(graph.initializers)
        for name, value in zip(wanted, graph.outputs, strict=True):
            if value.producer() is None:  # an argument or a parameter, returned as it came
                continue
            value.name = _unique(name, taken)

    def batch(self, name: str) -> None:
        """Give the open batch its name where the exporter has made one up."""
        first = [v.shape[0] for v in self.graph.inputs if v.shape is not None and len(v.shape)]
        symbols = dict.fromkeys(str(n.value) for n in first if not isinstance(n, int))
        if len(symbols) != 1 or name in symbols:
            return
        symbol = re.compile(rf"\b{re.escape(next(iter(symbols)))}\b")
        for value in self._values():
            if value.shape is None:
                continue
            sizes = [n if isinstance(n, int) else str(n.value) for n in value.shape]
            named = [symbol.sub(name, n) if isinstance(n, str) else n for n in sizes]
            if named != sizes:
                value.shape = type(value.shape)(named)


def _unique(name: str, taken: set[str]) -> str:
    """Return a name that nobody has, and take it."""
    made, number = name, 1
    while made in taken:
        number += 1
        made = f"{name}_{number}"
    taken.add(made)
    return made


def _output_names(torch_: Any, program: Any, given: Sequence[str] | None) -> list[str]:
    """Return the names of the outputs, by the structure of what `forward` returned."""
    if given is not None:
        return list(given)
    tree = torch_.utils._pytree  # noqa: SLF001
    exported = program.exported_program
    specs = [s for s in exported.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]
    structure = tree.tree_unflatten(list(range(len(specs))), exported.call_spec.out_spec)
    paths, _ = tree.tree_flatten_with_path(structure)
    names = ["_".join(_key(k) for k in path) for path, _ in paths]
    kinds = [type(s.arg).__name__ for s in specs]  # the others are constants, such as None
    tensors = [n for n, kind in zip(names, kinds, strict=True) if kind == "TensorArgument"]
    if tensors == [""]:
        return ["output"]
    return [n if not n[:1].isdigit() else f"output_{n}" for n in tensors]


def _key(key: Any) -> str:
    """Return a step of a path into nested results as text: a key, an index or a field."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _clean(model: Any) -> None:
    """Drop what the exporter notes about this machine: paths and lines of source files."""
    for node in model.graph.all_nodes():
        node.doc_string = None
        for mark in _MARKS:
            node.metadata_props.pop(mark, None)
    model.graph.doc_string = None


# --- the result ----------------------------------------------------------------------------------------------------------


def _verify(module: Any, program: Any, made: TorchExport) -> None:
    """Hold the initializers against the module.

    Raises:
        CompileError: A parameter is missing, or is another tensor.
    """
    stored = program.model.graph.initializers
    needed = _needed(program, module)
    wrong = []
    for name, p in module.named_parameters():
        if name not in stored:
            if name in needed:
                wrong.append(f"{name} {list(p.shape)} is missing")
            else:
                made.unused.append(name)
            continue
        problem = _difference(stored[name], p)
        if problem:
            wrong.append(f"{name}: {problem}")
        made.parameters.append(name)
        if not p.requires_grad:
            made.frozen.append(name)
    if wrong:
        raise CompileError(
            "the exported file does not hold the module's parameters:\n  " + "\n  ".join(wrong),
            where=str(made.path),
            hint="the module may change its parameters while it runs (weight_norm, quantisation): "
            "remove that before exporting",
        )
    floats = {n for n, b in module.named_buffers() if b.is_floating_point()}
    made.buffers = [n for n in stored if n in floats]
    if any(n.endswith(_BATCH_NORM) for n in made.buffers):
        made.notes.append("batch normalisation arrives in inference form: import with mode='train'")


def _needed(program: Any, module: Any) -> set[str]:
    """Return the parameters that the traced program reads, shared ones by their first name."""
    first = {id(p): n for n, p in module.named_parameters()}
    every = dict(module.named_parameters(remove_duplicate=False))
    exported = program.exported_program
    targets = exported.graph_signature.inputs_to_parameters
    used = [n.name for n in exported.graph.nodes if n.op == "placeholder" and n.users]
    found = {targets[n] for n in used if n in targets}
    return {first[id(every[n])] if n in every else n for n in found}


def _difference(value: Any, p: torch.Tensor) -> str:
    """Return how an initializer differs from a parameter; the empty string when it does not."""
    shape = tuple(value.const_value.shape)
    if shape != tuple(p.shape):
        return f"its shape is {list(shape)}, the module has {list(p.shape)}"
    if str(p.dtype) not in ("torch.float32", "torch.float64"):
        return ""  # numpy has no bf16 to compare
    same = np.array_equal(value.const_value.numpy(), p.detach().cpu().numpy(), equal_nan=True)
    return "" if same else "its content is another"


def _shape(value: Any) -> tuple[int | str, ...]:
    return tuple(n if isinstance(n, int) else str(getattr(n, "value", n)) for n in value.shape)


def _write(program: Any, made: TorchExport) -> None:
    size = sum(v.const_value.nbytes for v in program.model.graph.initializers.values())
    outside = size >= _LARGE
    try:
        with _quiet():
            program.save(str(made.path), external_data=outside)
    except OSError as error:
        raise DataError(
            f"cannot be written: {error.strerror or error}", where=str(made.path)
        ) from error
    if outside:
        made.notes.append(f"the weights, {size / 1e9:.1f} GB, are in {made.path.name}.data")


def _some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
