"""Checkpoints: all that is needed to go on bit for bit, with a checksum per tensor, written whole or not at all.

A checkpoint is a safetensors file. Its tensors are the variables by name and the bytes of the original ONNX file; its metadata
hold the format version, the checksums, the position in the data and how loss and optimiser were made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir.graph import Graph
from tapeout.support.errors import CheckpointError
from tapeout.support.files import write_atomic
from tapeout.training import losses, optimizers

if TYPE_CHECKING:
    from tapeout.api.trainer import Trainer
    from tapeout.ir.op import Array

FAMILY = "tapeout checkpoint"
FORMAT = f"{FAMILY} 1"
MODEL = "model.onnx"
VARIABLE = "variable:"
_LIMIT = 16 << 30
_LARGEST_HEADER = 100 << 20


def save(trainer: Trainer, path: str | Path) -> None:
    """Write a checkpoint."""
    from safetensors.numpy import save as to_bytes

    from tapeout.frontend.onnx import settings

    tensors = {VARIABLE + n: trainer.session.read(n) for n in trainer.session.variables}
    if isinstance(trainer.model.origin, bytes):
        tensors[MODEL] = np.frombuffer(trainer.model.origin, np.uint8)
    meta = {
        "checksums": {n: _digest(a) for n, a in tensors.items()},
        "seed": trainer.seed,
        "position": {"epoch": trainer.epoch, "batch": trainer.batch, "rows": trainer.rows},
        "loss": _spell(trainer.loss),
        "optimizer": _spell(trainer.optimizer),
        "clip_norm": trainer.clip_norm,
        "precision": [list(rule) for rule in trainer.precision.rules],
        "trainable": {n: v.trainable for n, v in trainer.model.parameters.items()},
        "settings": settings.to_data(trainer.model),
        "operations": _operations(trainer.model),
        "attachments": trainer.attachments,
    }
    text = json.dumps(meta)
    head = {FORMAT: f"{_digest_of(text)} {text}"}  # one entry: with several their order would vary
    data = to_bytes({n: np.asarray(a, order="C") for n, a in tensors.items()}, metadata=head)
    write_atomic(Path(path), [data])


def restore(
    path: str | Path, model: Graph | str | Path | None, options: Mapping[str, Any]
) -> Trainer:
    """Return a trainer that goes on where the checkpoint was written.

    Raises:
        CheckpointError: The file is damaged, of another format, or does not fit; names the tensor.
    """
    from tapeout.api.trainer import Trainer

    tensors, meta = read(path)
    given = dict(options)
    position = meta["position"]
    loss = given.pop("loss", None) or _build(meta["loss"], path, "loss")
    optimizer = given.pop("optimizer", None) or _build(meta["optimizer"], path, "optimizer")
    given.setdefault("clip_norm", meta["clip_norm"])
    given.setdefault("seed", meta["seed"])
    given.setdefault("precision", dict(meta.get("precision", ())) or None)
    trainer = Trainer(_model(model, tensors, meta, path), loss=loss, optimizer=optimizer, **given)
    saved = {n.removeprefix(VARIABLE): a for n, a in tensors.items() if n.startswith(VARIABLE)}
    _check_fit(trainer, saved, path)
    for name, array in saved.items():
        trainer.session.write(name, array)
    trainer.epoch, trainer.batch = position["epoch"], position["batch"]
    trainer.rows = position["rows"]
    trainer.attachments.update(meta["attachments"])
    return trainer


def _model(
    given: Graph | str | Path | None,
    tensors: Mapping[str, Array],
    meta: Mapping[str, Any],
    path: str | Path,
) -> Graph:
    """Return the model that was given, or the one that the checkpoint holds, read and frozen as it was for the run."""
    if isinstance(given, Graph):
        return _frozen(given, meta["trainable"])
    if given is not None:
        return _read(given, meta)
    if MODEL not in tensors:
        raise CheckpointError(
            "it does not hold its model",
            where=str(path),
            hint="pass model=, the graph made in Python",
        )
    graph = _read(tensors[MODEL].tobytes(), meta)
    if _operations(graph) != meta["operations"]:
        raise CheckpointError(
            "its model was not read as it was for the run",
            where=str(path),
            hint="pass model=, the graph that the run had",
        )
    return graph


def _read(model: str | Path | bytes, meta: Mapping[str, Any]) -> Graph:
    from tapeout.frontend import onnx as front
    from tapeout.frontend.onnx import settings

    saved = meta.get("settings")
    how = {} if saved is None else settings.from_data(saved)
    return front.load(model, trainable=_trainable(meta), **how)


def _trainable(meta: Mapping[str, Any]) -> Any:
    """Return which parameters train, as `load` takes it; earlier checkpoints list those that do."""
    found = meta["trainable"]
    return found if isinstance(found, dict) else (lambda name: name in found)


def _frozen(graph: Graph, trainable: Any) -> Graph:
    """Return a graph of the user's with what was frozen for the run frozen, and the rest trainable."""
    if not isinstance(trainable, dict):
        return graph
    wrong = [
        n for n, v in graph.parameters.items() if n in trainable and trainable[n] != v.trainable
    ]
    if not wrong:
        return graph
    chosen = frozenset(wrong)
    frozen = graph.freeze(lambda n: n in chosen and not trainable[n])
    return frozen.unfreeze(lambda n: n in chosen and trainable[n])


def read(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return (tensors, metadata) of a checkpoint, every checksum verified.

    Raises:
        CheckpointError: The file cannot be read, or is damaged; names the tensor.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if Path(path).stat().st_size > _LIMIT:
            raise CheckpointError(f"is larger than {_LIMIT >> 30} GiB", where=str(path))
        with safe_open(str(path), framework="numpy") as f:
            head = _head(f.metadata() or {}, path)
            tensors = {n: f.get_tensor(n) for n in f.keys()}  # noqa: SIM118 (not a mapping)
    except OSError as e:
        raise CheckpointError(f"cannot be read: {e.strerror or e}", where=str(path)) from None
    except (SafetensorError, KeyError, ValueError) as e:
        raise CheckpointError(_damage(Path(path)) or f"is damaged: {e}", where=str(path)) from None
    digest, _, text = head.partition(" ")
    if digest != _digest_of(text):
        raise CheckpointError("is damaged: the checksum of its metadata differs", where=str(path))
    meta = json.loads(text)
    sums = meta["checksums"]
    for name in (*sums, *tensors):
        if name not in tensors or sums.get(name) != _digest(tensors[name]):
            raise CheckpointError(
                f"is damaged: the checksum of tensor {name.removeprefix(VARIABLE)!r} differs",
                where=str(path),
            )
    return tensors, meta


def _head(metadata: Mapping[str, str], path: str | Path) -> str:
    if FORMAT in metadata:
        return metadata[FORMAT]
    others = [name for name in metadata if name.startswith(FAMILY)]
    if others:
        raise CheckpointError(f"is a {others[0]}, this version reads {FORMAT}", where=str(path))
    raise CheckpointError("is no checkpoint of tapeout", where=str(path))


def _damage(path: Path) -> str:
    """Return which tensor a file breaks off in; empty when that is not what is wrong with it."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    if start > _LARGEST_HEADER:
        return "is no checkpoint"
    if len(data) < 8 or start > len(data):
        return "is damaged: it breaks off inside its header"
    try:
        header = json.loads(data[8:start])
        ends = {n: start + e["data_offsets"][1] for n, e in header.items() if n != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "is damaged: its header cannot be read"
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        if end > len(data):
            return f"is damaged: it breaks off inside tensor {name.removeprefix(VARIABLE)!r}"
    return ""


def _check_fit(trainer: Trainer, saved: Mapping[str, Array], path: str | Path) -> None:
    known = trainer.session.variables
    for name in saved:
        if name not in known:
            raise CheckpointError(
                f"it holds {name!r}, which the run has not",
                where=str(path),
                hint="the model or the optimiser differ",
            )
    for name, v in known.items():
        if name not in saved:
            raise CheckpointError(
                f"it lacks {name!r}", where=str(path), hint="the model or the optimiser differ"
            )
        if saved[name].shape != v.type.shape or saved[name].dtype != v.type.dtype.numpy:
            found = f"{saved[name].dtype}{list(saved[name].shape)}"
            raise CheckpointError(f"{name!r} is {found}, the model has {v.type}", where=str(path))


def _digest(array: Array) -> str:
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _operations(graph: Graph) -> str:
    """Return a digest of the names of all operations: it tells modes, and other ways to read a file, apart."""
    return _digest_of("\n".join(n.op.name for n in graph.nodes))


def _spell(x: Any) -> Any:
    """Return a loss or an optimiser as (class, fields), or None where it holds functions of the user's."""
    if x is None or isinstance(x, losses.Formula):
        return None
    if isinstance(x, losses.Elementwise):
        fields = {"target": x.target, "reduction": x.reduction, **dict(x.options)}
        return ["elementwise", x.name, {"output": x.output, **fields}]
    return ["record", type(x).__name__, {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}]


def _build(spelled: Any, path: str | Path, what: str) -> Any:
    if spelled is None:
        if what == "optimizer":
            return None
        raise CheckpointError(
            f"its {what} is a function that a file cannot hold",
            where=str(path),
            hint=f"pass {what}=",
        )
    kind, name, fields = spelled
    try:
        if kind == "elementwise":
            return losses.BY_NAME[name](fields.pop("output"), **fields)
        return _RECORDS[name](
            **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        )
    except (KeyError, TypeError):
        raise CheckpointError(
            f"its {what} {name!r} is unknown to this version", where=str(path), hint=f"pass {what}="
        ) from None


_RECORDS: dict[str, Any] = {
    c.__name__: c
    for c in (
        losses.CrossEntropy,
        losses.NegativeLogLikelihood,
        losses.Output,
        optimizers.Sgd,
        optimizers.Adam,
    )
}
