"""`tapeout predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tapeout.cli import options as o
from tapeout.support.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path

    from tapeout.api.compile import Executable
    from tapeout.ir.op import Array


@click.command(name="predict")
@o.together(o.model, o.data)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="Outputs by name as .npz, or a single one as .npy.",
)
@o.together(o.rename, o.transform, o.batch_size, o.precision, o.threads, o.target)
def command(
    model: str,
    data_text: str,
    output: str,
    inputs: tuple[str, ...],
    transforms: tuple[str, ...],
    batch_size: int,
    precisions: tuple[str, ...],
    threads: int | None,
    target: str,
) -> None:
    """Run a model on data and write its outputs. The model runs in inference mode.

    \b
    tapeout predict trained.onnx --data images.npz -o out.npz
    python -c "import numpy; print(numpy.load('out.npz')['logits'].argmax(1))"
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    import tapeout
    from tapeout.cli import reading
    from tapeout.cli.outputs import check_not_input, check_writable
    from tapeout.cli.say import Speaker
    from tapeout.cli.spec import parse_precisions

    speaker = Speaker()
    path = check_writable(output, suffixes=(".npz", ".npy"))
    check_not_input(path, model, data_text)
    graph = reading.load_model(model, modes=("eval",))
    if path.suffix == ".npy" and len(graph.outputs) > 1:
        names = ", ".join(n for n, _ in graph.outputs)
        raise OptionError(
            f"the model has several outputs ({names}), .npy holds one",
            where=output,
            hint="use .npz",
        )
    dataset = reading.load_dataset(data_text, inputs, transforms)
    found = reading.mapped(dataset, graph, None, data_text)
    speaker.line("data", "\n".join((*found.notes, *found.mapping.lines)))
    precision = parse_precisions(precisions)
    program = tapeout.compile(graph, target=target, threads=threads, precision=precision)
    outputs = _run(program, found.arrays, batch_size)
    _write(path, outputs)
    for name, array in outputs.items():
        speaker.line("wrote", f"{path}: {name} {array.dtype}{list(array.shape)}")


def _run(program: Executable, arrays: dict[str, Any], batch_size: int) -> dict[str, Array]:
    import numpy as np

    from tapeout.data import batches

    parts: dict[str, list[Array]] = {}
    for batch in batches(arrays, batch_size):
        for name, array in program(batch).items():
            parts.setdefault(name, []).append(array)
    return {n: a[0] if len(a) == 1 else np.concatenate(a) for n, a in parts.items()}


def _write(path: Path, outputs: dict[str, Array]) -> None:
    from tapeout.cli.npz import npy_bytes, npz_bytes
    from tapeout.support.files import write_atomic

    whole = npy_bytes(next(iter(outputs.values()))) if path.suffix == ".npy" else npz_bytes(outputs)
    write_atomic(path, whole)
