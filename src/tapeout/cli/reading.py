"""From a command's options to a model and to arrays that fit it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapeout.support.errors import DataError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tapeout.data import DataMapping, Dataset
    from tapeout.ir.graph import Graph
    from tapeout.training.losses import Loss


@dataclass(frozen=True)
class Mapped:
    """Arrays by the model's input names, and how they came to be.

    Attributes:
        arrays: Input name to array, one sample per row; labels included where the loss has them.
        mapping: The rules, for other data of the same kind.
        samples: Number of rows.
        notes: What the reader of the file decided by itself.
    """

    arrays: dict[str, Any]
    mapping: DataMapping
    samples: int
    notes: tuple[str, ...]


def load_model(
    path: str,
    *,
    trainable: Sequence[str] = (),
    modes: tuple[str, ...] = (),
    classes: int | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Graph:
    """Return the graph of a model file, with the changes that the options ask for.

    Args:
        path: The file.
        trainable: `--trainable`.
        modes: `--mode`.
        classes: `--replace-head`.
        dims: Numbers of named dimensions.
        seed: Seed of a new head.

    Raises:
        TapeoutError: The file cannot be read or imported.
    """
    import tapeout
    from tapeout.cli.spec import parse_modes

    found, globs = existing(path), trainable_globs(trainable)
    graph = tapeout.load_onnx(found, dims=dims or None, trainable=globs, mode=parse_modes(modes))
    if classes is None:
        return graph
    changed = tapeout.surgery.replace_head(graph, classes, seed=seed)
    # A new head trains, unless the patterns say otherwise of its names.
    return changed.freeze("*").unfreeze(globs)


def changed_file(graph: Graph) -> bytes:
    """Return the bytes of the file that a changed model stands for.

    Raises:
        OptionError: It would be larger than a file can be.
    """
    if not isinstance(graph.origin, bytes):
        raise OptionError("the changed model does not fit into one file of 2 GiB")
    return graph.origin


def existing(path: str) -> Path:
    """Return the path of a file that is there.

    Raises:
        DataError: It is not, or it is a folder.
    """
    found = Path(path)
    if not found.exists():
        raise DataError("no such file", where=path, hint=_beside(found))
    if found.is_dir():
        raise DataError("is a folder; an ONNX file is expected", where=path)
    return found


@contextmanager
def naming(text: Callable[[], str] | str) -> Iterator[None]:
    """Name the data in errors about arrays that do not say which file they are from."""
    try:
        yield
    except DataError as e:
        name = text if isinstance(text, str) else text()
        if name in e.where:
            raise
        where = f"{name}: {e.where}" if e.where else name
        raise DataError(e.message, where=where, hint=e.hint) from None


def trainable_globs(given: Sequence[str]) -> str | list[str]:
    """Return `--trainable` as `load_onnx` takes it; exclusions alone mean everything but them."""
    globs = [g.strip() for text in given for g in text.split(",") if g.strip()]
    if not globs:
        return "*"
    return globs if any(not g.startswith("!") for g in globs) else ["*", *globs]


def _beside(path: Path) -> str:
    from tapeout.support.errors import nearest

    if not path.parent.is_dir():
        return f"there is no folder {str(path.parent)!r}"
    models = sorted(p.name for p in path.parent.glob("*.onnx"))
    return nearest(path.name, models) if models else ""


def label_of(loss: Loss) -> str | None:
    """Return the name of the loss's labels or targets, None where it has none."""
    found = getattr(loss, "labels", None) or getattr(loss, "target", None)
    return found if isinstance(found, str) else None


def load_dataset(text: str, inputs: Sequence[str], transforms: Sequence[str]) -> Dataset:
    """Return what `--data` names, after `--input` and `--transform`.

    Raises:
        DataError: As `tapeout.data.load`.
        OptionError: A transform without a name.
    """
    from tapeout.data import load

    by_name: dict[str, str] = {}
    for item in transforms:
        name, equals, expression = item.partition("=")
        if not equals or not name.strip():
            raise OptionError(f"{item!r}: X=EXPR is expected, as in x=x/255", where="--transform")
        by_name[name.strip()] = expression
    return load(text, inputs=inputs, transforms=by_name)


def mapped(dataset: Dataset, graph: Graph, labels: str | None, text: str) -> Mapped:
    """Return the dataset's arrays as inputs of the model; `text` is what the user called the data.

    Raises:
        DataError: An input that no array fits.
    """
    from tapeout.data import infer_mapping

    with naming(text):
        mapping = infer_mapping(dataset, model_inputs(graph), labels)
    return mapped_by(mapping, dataset, text)


def mapped_by(mapping: DataMapping, dataset: Dataset, text: str) -> Mapped:
    """Return the arrays of another dataset by rules that are known already.

    Raises:
        DataError: An array is missing or has another shape.
    """
    with naming(text):
        arrays = mapping.apply(dataset.arrays)
    return Mapped(arrays, mapping, dataset.samples, dataset.notes)


def model_inputs(graph: Graph) -> dict[str, tuple[Any, tuple[int | None, ...]]]:
    """Return dtype and shape of each input, None for sizes that are not bound."""
    from tapeout.ir.type import Dim

    def size(n: int) -> int | None:
        return None if isinstance(n, Dim) and graph.dims else int(n)

    return {
        v.name: (v.type.dtype.numpy, tuple(size(n) for n in v.type.shape)) for v in graph.inputs
    }
