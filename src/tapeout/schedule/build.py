"""From a graph of primitives to a program: fusion, order, loops, memory plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tapeout.ir.type import TensorType
from tapeout.kernel.compute import ContractionKernel
from tapeout.kernel.program import Branch, Check, Launch, Loop, Program
from tapeout.schedule.chain import Chain, chained
from tapeout.schedule.form import Form, chain_form, form_key, kernel_form
from tapeout.schedule.fuse import Fused, fixed_homes, fuse
from tapeout.schedule.hoist import hoisted
from tapeout.schedule.kernels import nan_search
from tapeout.schedule.lower import Lowered, lower
from tapeout.schedule.lower.chain import lower_chain
from tapeout.schedule.memory import place
from tapeout.schedule.model import Home, Region, Work
from tapeout.schedule.nest import Nest
from tapeout.schedule.order import order
from tapeout.schedule.reuse import reuse
from tapeout.schedule.sweep import merge_sweeps
from tapeout.schedule.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array
    from tapeout.kernel.compute import Kernel as Computation
    from tapeout.kernel.loops import Kernel
    from tapeout.kernel.program import Item, Layout
    from tapeout.kernel.target import Target
    from tapeout.schedule.lower.chain import ChainKernel
    from tapeout.schedule.nest import AnyWork, View

CHAIN_BYTES = 512 * 1024
"""Most bytes that a task of a chain keeps to itself: what second-level caches hold."""

GRADIENT = "grad/"
"""An output of this name and a parameter's is the gradient of the parameter."""


@dataclass(frozen=True)
class Plan:
    """The kernels of a program at level T.

    Attributes:
        fused: What fusion gave: where outputs and checks live, and the constants.
        works: The kernels in the order in which they run; late ones come last.
        regions: Homes at fixed distances from each other.
        lowered: Kernels that had to be lowered, by default, to find their order.
    """

    fused: Fused
    works: tuple[AnyWork, ...]
    regions: tuple[Region, ...]
    lowered: Mapping[Form, Lowered] = field(default_factory=dict)


def plan_works(
    graph: Graph, layout: Layout, scratch: Callable[[AnyWork], int] = lambda _: 0
) -> Plan:
    """Return the kernels of a graph in their final order, updates merged, results over dying operands.

    Args:
        graph: Of primitives.
        layout: Where its variables live.
        scratch: Says how many bytes a kernel needs while it runs.
    """
    fused = fuse(graph)
    works, regions = merge_sweeps(fused.works, layout, {h.name: None for h in fused.checks})
    regions += gradient_region(fused.outputs, layout, regions)
    homes = {h.name: h for h in fused.sources} | {h.name: h for w in works for h in w.homes}
    lasting = {h.name: h for h in (*fused.outputs.values(), *fused.checks)}
    works = order(works, homes | lasting, dict.fromkeys(lasting), scratch)
    parts = {name: None for r in regions for name, _ in r.parts}
    fixed = {**dict.fromkeys(lasting), **parts, **fixed_homes(works)}
    return Plan(fused, reuse(works, fixed), regions)


def schedule(
    graph: Graph,
    layout: Layout,
    target: Target,
    *,
    check_nans: bool = False,
    choices: Mapping[str, str] | None = None,
    ready: Callable[[Kernel], None] | None = None,
) -> Program:
    """Return the program of a graph of primitives.

    Args:
        graph: Every operation is pointwise, a reduction, a contraction or a scatter.
        layout: Where the variables live (`plan_variables`); holds every variable of the graph.
        target: The class of machines.
        check_nans: Whether each kernel's results are searched for NaN, in launches of their own; the step stops at the first.
        ready: Called with each kernel as soon as it is known; some may be of no use in the end.
        choices: How to lower kernels, by `form_key`, where it is not to be the default; no choice changes a bit of the results.

    Raises:
        CompileError: An operation cannot be scheduled.
        VerifyError: The finished program breaks a rule of its representation (a fault of this package).
    """
    plan = plan_for(graph, layout, target, None if choices else ready)
    return assemble(plan, graph, layout, target, check_nans=check_nans, choices=choices)


def plan_for(
    graph: Graph,
    layout: Layout,
    target: Target,
    ready: Callable[[Kernel], None] | None = None,
) -> Plan:
    """Return the kernels of a graph for a class of machines; arguments as for `schedule`."""
    items = _Items(target, ready=ready)
    return replace(plan_works(graph, layout, items.scratch), lowered=items.lowered)


def forms_of(plan: Plan) -> dict[str, Work]:
    """Return one kernel of each structure, those of loops and branches included, by `form_key`."""
    found: dict[Form, Work] = {}
    pending: list[AnyWork] = list(reversed(plan.works))
    while pending:
        work = pending.pop()
        if isinstance(work, Nest):
            pending += [w for body in reversed(work.bodies) for w in reversed(body)]
        else:
            found.setdefault(kernel_form(work.kernel), work)
    return {form_key(f): w for f, w in found.items()}


def assemble(
    plan: Plan,
    graph: Graph,
    layout: Layout,
    target: Target,
    *,
    check_nans: bool = False,
    choices: Mapping[str, str] | None = None,
) -> Program:
    """Return the program of planned kernels: lowered, and placed in memory. Arguments as for `schedule`."""
    items = _Items(target, choices)
    if choices is None:
        items.lowered.update(plan.lowered)
    fused = plan.fused
    parts = {name: None for r in plan.regions for name, _ in r.parts}
    fixed = {h.name: None for h in (*fused.outputs.values(), *fused.checks)} | parts
    # A search for NaN looks at what every kernel writes.
    works = plan.works if check_nans else chained(plan.works, fixed, items.fits)
    for work in works:
        if isinstance(work, Chain):
            items.chain(work)
        elif not work.late:
            items.add(work, len(graph.checks) if check_nans else None)
    for code, (check, home) in enumerate(zip(graph.checks, fused.checks, strict=True), 1):
        items.append(Check(home.name, code, check.message), [home])
    for work in plan.works:
        if work.late:
            items.add(work, None)
    items.homes.update((h.name, h) for h in (*fused.outputs.values(), *fused.sources))

    inputs = {v.name: v.type for v in graph.inputs}
    outputs = {name: home.name for name, home in fused.outputs.items()}
    constants = fused.constants | items.constants
    placed = place(
        items.items, items.homes, plan.regions, layout, constants, inputs, outputs, items.views
    )
    program = Program(
        graph.name,
        tuple(inputs),
        outputs,
        placed.buffers,
        tuple(items.items),
        items.kernels,
        layout,
        placed.arena,
        placed.data,
        inputs,
    )
    verify(program)
    return program


def gradient_region(
    outputs: Mapping[str, Home], layout: Layout, regions: Sequence[Region]
) -> tuple[Region, ...]:
    """Return the region that holds the gradients asked for as outputs, at the distances of their parameters.

    Those that lie in another region already, and outputs that are no buffer of their own, are left out.
    """
    taken = {name for r in regions for name, _ in r.parts}
    parts: dict[str, int] = {}
    for slot in layout.slots:
        home = outputs.get(GRADIENT + slot.name)
        if home is None or home.space != "activation" or home.name in taken or home.name in parts:
            continue
        if home.type == slot.type and home.order == tuple(range(home.type.rank)):
            parts[home.name] = slot.offset
    if not parts:
        return ()
    start = min(parts.values())
    ends = [parts[h.name] + h.type.bytes for h in outputs.values() if h.name in parts]
    dtype = next(h.type.dtype for h in outputs.values() if h.name in parts)
    size = -(-(max(ends) - start) // dtype.bytes)
    home = Home("%gradients", TensorType(dtype, (size,)), (0,), "gradient")
    return (Region(home, tuple((name, at - start) for name, at in parts.items())),)


def fixed_homes_of(loop: Nest) -> dict[str, None]:
    """Return the names of the homes that a loop only reads, and reads at one place in all rounds."""
    moving = {v.of.name for v in loop.views} | {v.home.name for v in loop.views}
    return {n: None for n in loop.reads if n not in moving and n not in loop.writes}


class _Items:
    """The items of a program while it is built."""

    def __init__(
        self,
        target: Target,
        choices: Mapping[str, str] | None = None,
        ready: Callable[[Kernel], None] | None = None,
    ) -> None:
        self.target, self.choices, self.ready = target, choices, ready
        self.keys: dict[Form, str] = {}
        self.homes: dict[str, Home] = {}
        self.items: list[Item] = []
        self.kernels: dict[str, Kernel] = {}
        self.lowered: dict[Form, Lowered] = {}
        self.chains: dict[Form, Lowered | None] = {}
        self.views: dict[str, View] = {}
        self.constants: dict[str, Array] = {}
        self.nan_checks = 0
        self.prefix = ""
        self.fixed: dict[str, None] = {}

    def append(self, item: Item, homes: Sequence[Home]) -> None:
        """Append an item that touches homes."""
        self.homes.update((h.name, h) for h in homes)
        self.items.append(item)

    def add(self, work: AnyWork, checks: int | None) -> None:
        """Append a kernel, a loop or a branch; `checks` is the last code in use if results are searched for NaN."""
        if isinstance(work, Nest):
            self._nest(work, checks)
            return
        self.launch(work)
        if checks is not None:
            self.check_nans(work, checks)

    def _nest(self, nest: Nest, checks: int | None) -> None:
        self.homes.update((h.name, h) for h in nest.homes)
        for v in nest.views:
            self.views[v.home.name] = v
            self.homes.update({v.home.name: v.home, v.of.name: v.of})
        self.constants |= nest.constants
        sides = [self._inside(nest, n, checks) for n in range(len(nest.bodies))]
        if nest.count is not None:
            before, inside = hoisted(sides[0], self.kernels, self.views, dict.fromkeys(nest.args))
            self.items += before
            if not inside:
                return
            self.items.append(Loop(nest.count, inside, nest.loc, nest.label))
            return
        assert nest.predicate is not None
        self.homes[nest.predicate.name] = nest.predicate
        then, otherwise = sides
        self.items.append(Branch(nest.predicate.name, then, otherwise, nest.loc, nest.label))

    def _inside(self, nest: Nest, n: int, checks: int | None) -> tuple[Item, ...]:
        """Return the items of one body of a nest."""
        around = self.items, self.prefix, self.fixed
        self.items, self.prefix = [], f"{nest.writes[0]}/{n}/"
        # What one side of a branch copies is not done before the loop around.
        self.fixed = {} if nest.count is None else fixed_homes_of(nest)
        for work in nest.bodies[n]:
            self.add(work, checks)
        made = tuple(self.items)
        self.items, self.prefix, self.fixed = around
        return made

    def check_nans(self, work: Work, code: int) -> None:
        """Append a search for NaN in what a kernel wrote, and a check with the next code after `code`."""
        for home in work.homes:
            if home.name not in work.writes or not home.type.dtype.is_float or not home.type.size:
                continue
            self.nan_checks += 1
            found = nan_search(home, f"%nan{self.nan_checks}", work)
            self.launch(found)
            message = f"NaN in a result of {work.label}"
            flag = found.homes[-1]
            self.append(Check(flag.name, code + self.nan_checks, message), [flag])

    def scratch(self, work: AnyWork) -> int:
        """Return how many bytes a kernel needs while it runs."""
        if isinstance(work, Nest):
            return 0
        return sum(s.size * s.dtype.bytes for s in self._lower(work).scratch)

    def _kernel(self, work: Work) -> Computation:
        """Return the kernel of a work, told which of its operands are the same in every round of the loop around."""
        kernel = work.kernel
        if not isinstance(kernel, ContractionKernel):
            return kernel
        pairs = zip(kernel.buffers, work.homes, strict=True)
        return replace(kernel, fixed=tuple(b.name for b, h in pairs if h.name in self.fixed))

    def _lower(self, work: Work) -> Lowered:
        # Layers of equal shape give equal kernels: each is lowered once.
        kernel = self._kernel(work)
        key = kernel_form(kernel)
        if key not in self.lowered:
            choice = None
            if self.choices is not None:
                self.keys[key] = form_key(key)
                choice = self.choices.get(self.keys[key])
            made = self.lowered[key] = lower(kernel, self.target, choice)
            if self.ready is not None:
                for call in made.launches:
                    self.ready(call.kernel)
        return self.lowered[key]

    def fits(self, chain: Chain) -> bool:
        """Whether a task has room for what a chain keeps to itself."""
        return self._lower_chain(chain.kernel()[0]) is not None

    def _lower_chain(self, kernel: ChainKernel) -> Lowered | None:
        key = chain_form(kernel)
        if key not in self.chains:
            self.chains[key] = lower_chain(kernel, self.target, CHAIN_BYTES)
        return self.chains[key]

    def chain(self, chain: Chain) -> None:
        """Append kernels as one launch."""
        kernel, names = chain.kernel()
        lowered = self._lower_chain(kernel)
        assert lowered is not None, "a chain that does not fit"
        homes = chain.homes
        (call,) = lowered.launches
        self.kernels[call.kernel.name] = call.kernel
        used = [homes[names[a]] for a in call.args]
        item = Launch(
            call.kernel.name,
            tuple(h.name for h in used),
            chain.works[0].loc,
            "; ".join(dict.fromkeys(w.label for w in chain.works)),
            call.flops,
            call.bytes,
            sources=tuple(dict.fromkeys(s for w in chain.works for s in w.sources)),
        )
        self.append(item, used)

    def launch(self, work: Work) -> None:
        """Lower a kernel and append its launches."""
        lowered = self._lower(work)
        form = self.keys[kernel_form(self._kernel(work))] if self.choices is not None else ""
        homes = dict(zip((b.name for b in work.kernel.buffers), work.homes, strict=True))
        for scratch in lowered.scratch:
            name = f"{self.prefix}%scratch{len(self.items)}.{scratch.name}"
            type_ = TensorType(scratch.dtype, (scratch.size,))
            homes[scratch.name] = Home(name, type_, (0,), "activation")
        for call in lowered.launches:
            self.kernels[call.kernel.name] = call.kernel
            used = [homes[a] for a in call.args]
            item = Launch(
                call.kernel.name,
                tuple(h.name for h in used),
                work.loc,
                work.label,
                call.flops,
                call.bytes,
                work.late,
                work.sources,
                form,
            )
            self.append(item, used)
