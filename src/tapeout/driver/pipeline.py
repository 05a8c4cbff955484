"""The pipeline, top to bottom: a graph with every dimension bound becomes launches and object code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tapeout.driver.dump import Dumper
from tapeout.passes.cse import Cse
from tapeout.passes.dce import Dce
from tapeout.passes.decompose import Decompose
from tapeout.passes.fold import Fold
from tapeout.passes.loops import Loops
from tapeout.passes.recompute import Recompute
from tapeout.passes.simplify import Simplify

if TYPE_CHECKING:
    from tapeout.driver.options import Options
    from tapeout.ir.graph import Graph
    from tapeout.kernel.loops import Kernel
    from tapeout.kernel.program import Layout, Program
    from tapeout.passes.base import Pass

OPTIMIZE: tuple[Pass, ...] = (
    Decompose(),  # composites become primitives: differentiation is over, selection of kernels sees one vocabulary
    Fold(),  # before Simplify, which tests operands for constants
    Simplify(),
    Cse(),  # after Simplify, which makes equal what was written differently
    Simplify(),  # what shared operands made visible
    Dce(),  # the rules above leave their inputs behind
    Loops(),  # after Dce: what nothing reads any more needs no place in a loop
    Recompute(),  # last: nothing may merge again what is computed twice on purpose
)


@dataclass(frozen=True)
class Stage:
    """A graph or program after a stage.

    Attributes:
        name: The stage.
        graph: The graph, for stages of the graph.
        program: The program, after scheduling.
        changed: Whether the stage did anything.
    """

    name: str
    graph: Graph | None = None
    program: Program | None = None
    changed: bool = True


@dataclass(frozen=True)
class Compiled:
    """What a graph was compiled to.

    Attributes:
        program: Launches and buffers; `kernels` may be empty when it comes from the cache.
        objects: Object code by symbol: one per kernel or batch of kernels, and the driver.
        entry: Symbol of the entry point.
        cached: Whether it came from the cache as a whole.
    """

    program: Program
    objects: dict[str, bytes] = field(default_factory=dict)
    entry: str = ""
    cached: bool = False


def optimize(graph: Graph, options: Options) -> Iterator[Stage]:
    """Yield the graph as it comes in and after each pass."""
    yield Stage("built", graph)
    for step in OPTIMIZE:
        before, graph = graph, step.run(graph)
        if options.verify and graph is not before:
            from tapeout.ir.verify import verify

            verify(graph)
        yield Stage(step.name, graph, changed=graph is not before)


def lower(
    graph: Graph,
    layout: Layout,
    options: Options,
    ready: Callable[[Kernel], None] | None = None,
) -> Program:
    """Return the program of an optimised graph, its kernels lowered as tuning found best where it did.

    `ready` is called with each kernel as soon as it is known.
    """
    from tapeout.driver import tuned
    from tapeout.schedule.build import schedule

    choices = tuned.choices(options.target) if options.cache else {}
    target = replace(options.target, winograd=False) if options.direct else options.target
    return schedule(graph, layout, target, choices=choices or None, ready=ready)


def compile_graph(
    graph: Graph, layout: Layout, options: Options, *, clocks: bool = False
) -> Compiled:
    """Compile one entry point of a module, or load it from the cache.

    Args:
        graph: Every dimension is bound.
        layout: Where the module's variables live.
        options: How.
        clocks: Let the program time its launches; it is scheduled anew then, with the provenance of this graph.

    Raises:
        CompileError: A stage cannot handle the graph; names the stage and the node.
    """
    from tapeout.codegen.build import build, crew_of
    from tapeout.driver import cache, tuned

    choices = tuned.digest(options.target) if options.cache else ""
    key = cache.program_key(graph, layout, options, choices)
    dumper = Dumper(options, graph.name)
    kept = options.cache and not dumper.active and not clocks
    if kept:
        found = cache.load(key, graph, layout)
        if found is not None:
            return found
    for stage in optimize(graph, options):
        dumper.graph(stage.name, stage.graph, stage.changed)
        assert stage.graph is not None
        graph = stage.graph
    # Kernels are compiled in other processes while later ones are lowered here.
    with closing(crew_of(options.target, checked=options.checked, cached=options.cache)) as crew:
        program = lower(graph, layout, options, crew.submit)
        dumper.program(program)
        objects, entry = build(
            program,
            options.target,
            checked=options.checked,
            cached=options.cache,
            clocks=clocks,
            dump=dumper.text if dumper.active else None,
            crew=crew,
        )
    compiled = Compiled(program, objects, entry)
    if kept:
        cache.store(key, compiled)
    return compiled
