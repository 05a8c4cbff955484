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

FORMAT = "tapeout checkpoint 1"
MODEL = "model.onnx"
_LIMIT = 16 << 30


def save(trainer: Trainer, path: str | Path) -> None:
    """Write a checkpoint."""
    from safetensors.numpy import save as to_bytes

    tensors = {"variable:" + n: trainer.session.read(n) for n in trainer.session.variables}
    if isinstance(trainer.model.origin, bytes):
        tensors[MODEL] = np.frombuffer(trainer.model.origin, np.uint8)
    meta = {
        "format": FORMAT,
        "checksums": json.dumps({n: _digest(a) for n, a in tensors.items()}),
        "position": json.dumps(
            {"epoch": trainer.epoch, "batch": trainer.batch, "seed": trainer.seed}
        ),
        "loss": json.dumps(_spell(trainer.loss)),
        "optimizer": json.dumps(_spell(trainer.optimizer)),
        "clip_norm": json.dumps(trainer.clip_norm),
        "trainable": json.dumps([n for n, v in trainer.model.parameters.items() if v.trainable]),
    }
    write_atomic(
        Path(path),
        [to_bytes({n: np.asarray(a, order="C") for n, a in tensors.items()}, metadata=meta)],
    )


def restore(
    path: str | Path, model: Graph | str | Path | None, options: Mapping[str, Any]
) -> Trainer:
    """Return a trainer that goes on where the checkpoint was written.

    Raises:
        CheckpointError: The file is damaged, of another format, or does not fit; names the tensor.
    """
    from tapeout.api.load import load_onnx
    from tapeout.api.trainer import Trainer

    tensors, meta = read(path)
    given = dict(options)
    if model is None:
        if MODEL not in tensors:
            raise CheckpointError(
                "it does not hold its model",
                where=str(path),
                hint="pass model=, the graph made in Python",
            )
        trained = set(json.loads(meta["trainable"]))
        model = load_onnx(tensors[MODEL].tobytes(), trainable=lambda name: name in trained)
    loss = given.pop("loss", None) or _build(json.loads(meta["loss"]), path, "loss")
    optimizer = given.pop("optimizer", None) or _build(
        json.loads(meta["optimizer"]), path, "optimizer"
    )
    position = json.loads(meta["position"])
    given.setdefault("clip_norm", json.loads(meta["clip_norm"]))
    trainer = Trainer(model, loss=loss, optimizer=optimizer, seed=position["seed"], **given)
    saved = {
        n.removeprefix("variable:"): a for n, a in tensors.items() if n.startswith("variable:")
    }
    _check_fit(trainer, saved, path)
    for name, array in saved.items():
        trainer.session.write(name, array)
    trainer.epoch, trainer.batch = position["epoch"], position["batch"]
    return trainer


def read(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return (tensors, metadata) of a checkpoint, every checksum verified.

    Raises:
        CheckpointError: The file cannot be read, or is damaged; names the tensor.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if Path(path).stat().st_size > _LIMIT:
            raise CheckpointError(f"is larger than {_LIMIT >> 30} GiB", where=str(path))
        with safe_open(str(path), framework="numpy") as f:
            meta = dict(f.metadata() or {})
            if meta.get("format") != FORMAT:
                raise CheckpointError(f"is no checkpoint of format {FORMAT!r}", where=str(path))
            tensors = {n: f.get_tensor(n) for n in f.keys()}  # noqa: SIM118 (not a mapping)
        sums = json.loads(meta["checksums"])
    except OSError as e:
        raise CheckpointError(f"cannot be read: {e.strerror or e}", where=str(path)) from None
    except (SafetensorError, KeyError, ValueError) as e:
        raise CheckpointError(f"is damaged: {e}", where=str(path)) from None
    for name, array in tensors.items():
        if sums.get(name) != _digest(array):
            raise CheckpointError(
                f"tensor {name!r} is damaged: its checksum differs", where=str(path)
            )
    return tensors, meta


def _check_fit(trainer: Trainer, saved: Mapping[str, Array], path: str | Path) -> None:
    for name, v in trainer.session.variables.items():
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


def _spell(x: Any) -> Any:
    """Return a loss or an optimiser as (class, fields), or None where it holds functions of the user's."""
    if x is None or isinstance(x, losses.Formula):
        return None
    if isinstance(x, losses.Elementwise):
        if x.name not in ("mse", "l1"):
            return None
        return [
            "elementwise",
            x.name,
            {"output": x.output, "target": x.target, "reduction": x.reduction},
        ]
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
    if kind == "elementwise":
        return losses.BY_NAME[name](fields.pop("output"), **fields)
    known = {
        c.__name__: c
        for c in (
            losses.CrossEntropy,
            losses.NegativeLogLikelihood,
            losses.Output,
            optimizers.Sgd,
            optimizers.Adam,
        )
    }
    make: Any = known[name]
    return make(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
