"""Where the time of a step goes: each launch timed inside of the native step, with threads and loops as the user runs it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.api.timed import Timed, timed
from tapeout.driver.ceiling import Ceiling, ceiling
from tapeout.driver.pipeline import compile_graph
from tapeout.support.errors import OptionError
from tapeout.support.units import bytes_text, count_text, seconds_text

if TYPE_CHECKING:
    from tapeout.api.compile import Executable
    from tapeout.api.trainer import Trainer
    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array
    from tapeout.kernel.program import Launch, Program
    from tapeout.runtime.executable import Executable as Native

_WARM = 2
_FEWEST, _MOST = 5, 400


@dataclass(frozen=True)
class Source:
    """A node of the model that a kernel computes something of.

    Attributes:
        name: Its name with its scope, or the place in Python.
        operator: Its ONNX operator; empty if it is from no ONNX file.
        role: `forward`, `backward`, `again` (computed anew for the backward pass), `loss`, `update` or `check`.
    """

    name: str
    operator: str
    role: str


@dataclass(frozen=True)
class KernelTime:
    """One launch of the program; loops run it several times a step.

    Attributes:
        number: Its place in the order of the program.
        kernel: Symbol of the kernel.
        label: What it computes.
        role: What it is for, as of its main node.
        scope: The layer that it belongs to.
        sources: Every node of which it computes something.
        seconds: Time in a step, all runs together: the median over the steps.
        least: The shortest such time.
        runs: How often a step runs it.
        flops: Floating-point operations in a step.
        bytes: Bytes read and written in a step, each touched element counted once a run.
        tasks: Into how many parts it can be divided among threads.
        share: Part of the step's native time.
        of_roof: Part of what the machine does at best, operands in memory; above 1 where they come from a cache.
        bound: Which ceiling it meets: `compute` or `memory`.
    """

    number: int
    kernel: str
    label: str
    role: str
    scope: str
    sources: tuple[Source, ...]
    seconds: float
    least: float
    runs: float
    flops: float
    bytes: float
    tasks: int
    share: float
    of_roof: float
    bound: str


@dataclass(frozen=True)
class Total:
    """Several launches together: those of a role, a layer or a kernel."""

    name: str
    seconds: float
    share: float
    launches: int
    flops: float
    bytes: float


@dataclass(frozen=True)
class Profile:
    """What a step spends its time on.

    Attributes:
        name: Model and entry point.
        steps: Number of steps that were timed.
        threads: Threads it ran with.
        call: Seconds of a step as it is called from Python, without any clock inside: the median.
        native: Seconds inside of native code with the clocks running: the median.
        between: Part of `native` that no kernel accounts for: choosing launches, passing pointers, reading clocks.
        kernels: Launches, the longest first.
        ceiling: What the machine does at best.
    """

    name: str
    steps: int
    threads: int
    call: float
    native: float
    between: float
    kernels: tuple[KernelTime, ...]
    ceiling: Ceiling

    @property
    def flops(self) -> float:
        """Floating-point operations of a step."""
        return sum(k.flops for k in self.kernels)

    @property
    def bytes(self) -> float:
        """Bytes that the kernels of a step read and write."""
        return sum(k.bytes for k in self.kernels)

    def totals(self, by: str) -> tuple[Total, ...]:
        """Return the launches summed by `role`, `scope`, `kernel` or `label`, the longest first.

        Raises:
            OptionError: `by` is something else.
        """
        if by not in ("role", "scope", "kernel", "label"):
            raise OptionError(
                f"totals by {by!r} are not known", hint="role, scope, kernel or label"
            )
        groups: dict[str, list[KernelTime]] = {}
        for k in sorted(self.kernels, key=lambda k: k.number):
            groups.setdefault(getattr(k, by), []).append(k)
        found = [
            Total(
                name,
                sum(k.seconds for k in ks),
                sum(k.share for k in ks),
                len(ks),
                sum(k.flops for k in ks),
                sum(k.bytes for k in ks),
            )
            for name, ks in groups.items()
        ]
        return tuple(sorted(found, key=lambda t: -t.seconds))

    def to_data(self) -> dict[str, Any]:
        """Return everything as plain data, totals included."""
        return {
            **asdict(self),
            "flops": self.flops,
            "bytes": self.bytes,
            "totals": {by: [asdict(t) for t in self.totals(by)] for by in ("role", "scope")},
        }

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {seconds_text(self.call)} a step, {seconds_text(self.native)} of it native, "
            f"{self.threads} threads, {self.steps} steps"
        ]
        lines += [
            f"{100 * k.share:5.1f} % {seconds_text(k.seconds):>8} {count_text(k.flops / k.seconds)}FLOP/s "
            f"{bytes_text(k.bytes / k.seconds)}/s {100 * k.of_roof:.0f} % of the roof  {k.label}"
            for k in self.kernels[:20]
            if k.seconds
        ]
        return "\n".join(lines)


def profile(
    what: Trainer | Executable,
    batch: Mapping[str, Any] | None = None,
    *,
    predict: bool = False,
    steps: int | None = None,
    seconds: float = 2.0,
) -> Profile:
    """Time every kernel of a training step (or of any compiled graph) on a batch.

    Args:
        what: A trainer, or a compiled graph. Its variables are the same afterwards.
        batch: Arrays by input name; None makes some up, with unbound dimensions as they were bound last.
        predict: Profile the model in inference mode instead of the training step of a trainer.
        steps: How many steps are timed; None: as many as fit into `seconds`, between 5 and 400.
        seconds: About how long the timed steps take.

    Raises:
        OptionError: `what` is neither.
        DataError: The batch does not fit.
    """
    subject = timed(what, batch, predict)
    session = subject.session
    with subject.kept():
        subject.call()  # compiles it
        compiled = compile_graph(subject.graph, session.layout, session.options, clocks=True)
        calls, records = _time(subject, subject.native(compiled), steps, seconds)
    limits = ceiling(session.options.target, session.threads)
    return _profile(subject, compiled.program, calls, records, session.threads, limits)


def _operators(model: Graph) -> Mapping[str, str]:
    """Return the ONNX operator of each node by name; empty for a model that is from no file."""
    if model.imported is None:
        return {}
    from tapeout.frontend.onnx.session import Imported, operators

    return operators(model.imported.file) if isinstance(model.imported, Imported) else {}


def _time(
    subject: Timed, native: Native, steps: int | None, seconds: float
) -> tuple[list[float], list[Array]]:
    """Return the seconds of plain calls and the records of the clocks, taken in turn."""
    for _ in range(_WARM):
        subject.run(native)
    native.take_times()
    calls: list[float] = []
    records: list[Array] = []
    end = time.perf_counter() + seconds
    while len(calls) < (steps or _MOST):
        start = time.perf_counter()
        subject.call()
        calls.append(time.perf_counter() - start)
        subject.run(native)
        records.append(native.take_times())
        if steps is None and len(calls) >= _FEWEST and time.perf_counter() > end:
            break
    return calls, records


def _profile(
    subject: Timed,
    program: Program,
    calls: Sequence[float],
    records: Sequence[Array],
    threads: int,
    limits: Ceiling,
) -> Profile:
    taken = np.stack(records)
    times, runs = taken[:, :, 0] / 1e9, taken[:, :, 1].mean(axis=0)
    middle, least = np.median(times, axis=0), times.min(axis=0)
    native = float(middle[-1])
    between = float(np.median(times[:, -1] - times[:, :-1].sum(axis=1)))
    operators = _operators(subject.model)
    kernels = [
        _kernel(n, launch, program, operators, float(middle[n]), float(least[n]), float(runs[n]), native, limits)
        for n, launch in enumerate(program.launches)
    ]  # fmt: skip
    return Profile(
        subject.name,
        len(calls),
        threads,
        statistics.median(calls),
        native,
        between,
        tuple(sorted(kernels, key=lambda k: (-k.seconds, k.number))),
        limits,
    )


def _kernel(
    number: int,
    launch: Launch,
    program: Program,
    operators: Mapping[str, str],
    seconds: float,
    least: float,
    runs: float,
    native: float,
    limits: Ceiling,
) -> KernelTime:
    flops, size = launch.flops * runs, launch.bytes * runs
    named = dict.fromkeys((launch.loc, *launch.sources))
    return KernelTime(
        number,
        launch.kernel,
        launch.label or launch.kernel,
        launch.loc.role,
        _scope(launch),
        tuple(Source(s.name, _operator(s.name, operators), s.role) for s in named if s.name),
        seconds,
        least,
        runs,
        flops,
        size,
        program.kernels[launch.kernel].tasks,
        seconds / native if native else 0.0,
        limits.seconds(flops, size) / seconds if seconds else 0.0,
        limits.bound(flops, size),
    )


def _operator(name: str, operators: Mapping[str, str]) -> str:
    """Return the operator of a node, found without the scopes around it where it is inside of a body."""
    while name not in operators and "/" in name:
        name = name.partition("/")[2]
    return operators.get(name, "")


def _scope(launch: Launch) -> str:
    """Return the layer of a launch: the scope of its main node, or of the first of its nodes that has one."""
    for loc in (launch.loc, *launch.sources):
        head = loc.name.strip("/").rpartition("/")[0]
        if head:
            return head
    return launch.loc.name or f"({launch.loc.role})"
