"""`tapeout opt`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tapeout.support.errors import OptionError, nearest

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph
    from tapeout.passes.base import Pass


@click.command(name="opt")
@click.argument("file", type=click.Path())
@click.option(
    "-p",
    "--passes",
    "names",
    required=True,
    metavar="NAMES",
    help="Passes in order, with commas between; --list shows them.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE.tape",
    help="Where the graph goes, with its tensors; default: printed.",
)
@click.option(
    "--list",
    "listed",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda c, _, on: _list(c, on),
    help="List the passes.",
)
def command(file: str, names: str, output: str | None) -> None:
    """Run passes on a graph and print what comes out. FILE is a .tape or an ONNX file.

    \b
    tapeout opt 00-built.tape -p cse,simplify
    tapeout opt --list
    TAPEOUT_DUMP_DIR=d tapeout train net.onnx --data d.npz      writes the .tape of every stage
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    from tapeout.api.view import read
    from tapeout.cli.outputs import check_writable
    from tapeout.ir.text import write_tape
    from tapeout.ir.verify import verify

    target = check_writable(output, suffixes=(".tape",)) if output else None
    passes = [_named(name.strip()) for name in names.split(",") if name.strip()]
    graph = read(file)
    verify(graph)
    for step in passes:
        graph = _apply(step, graph)
    if target is None:
        click.echo(str(graph), nl=False)
    else:
        write_tape(target, graph)


def _apply(step: Pass, graph: Graph) -> Graph:
    from tapeout.ir.verify import verify

    found = step(graph)
    if found is graph:
        click.echo(f"// {step.name}: unchanged", err=True)
        return graph
    verify(found)
    click.echo(f"// {step.name}: {len(graph.nodes):,} nodes -> {len(found.nodes):,}", err=True)
    return found


def _named(name: str) -> Pass:
    from tapeout.passes import PASSES

    if name not in PASSES:
        raise OptionError(
            f"no pass is called {name!r}", where="--passes", hint=nearest(name, PASSES)
        )
    return PASSES[name]()


def _list(ctx: click.Context, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    from tapeout.passes import PASSES

    for name, cls in PASSES.items():
        click.echo(f"{name:<12}{(cls.__doc__ or '').strip().splitlines()[0]}")
    ctx.exit()
