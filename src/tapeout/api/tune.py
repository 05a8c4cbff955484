"""Tries other ways to lower the kernels of a step on this machine, and keeps the fastest.

All ways of a kernel give the same bits; which is fastest the analytic model can only guess. A round gives every kernel its next way,
compiles the whole step, and times each launch inside of it with clocks, in turn with the step as it is by default: so caches, threads
and neighbours are as in training, and a machine whose speed drifts disturbs nothing. What a round finds is kept at once, so that an
interrupted run has not been for nothing, and the next one goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.api.timed import Timed, timed
from tapeout.codegen.build import build
from tapeout.driver import tuned
from tapeout.driver.pipeline import Compiled, optimize
from tapeout.driver.tuned import Winner
from tapeout.schedule.build import Plan, assemble, forms_of, plan_for
from tapeout.schedule.lower import choices
from tapeout.support.units import seconds_text

if TYPE_CHECKING:
    from tapeout.api.compile import Executable
    from tapeout.api.trainer import Trainer
    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array
    from tapeout.runtime.executable import Executable as Native
    from tapeout.schedule.model import Work

_WORTH = 0.97
"""A way replaces another only where it takes at most this part of its time."""
_SMALL = 0.003
"""Kernels below this share of the step are left alone."""
_TURNS, _TURN_SECONDS = 3, 0.12


@dataclass(frozen=True)
class Gain:
    """A kernel that runs faster than by default.

    Attributes:
        label: What it computes.
        choice: How it is lowered now.
        seconds: Its time in a step by default.
        ratio: Its time now, divided by that.
    """

    label: str
    choice: str
    seconds: float
    ratio: float


@dataclass
class Tuning:
    """What was found.

    Attributes:
        name: Model and entry point.
        before: Seconds of a step with the default of every kernel.
        after: Seconds of a step with what was kept, measured in turn with the default.
        gains: Kernels that run faster, the largest saving first.
        tried: Number of kernels that have more than one way.
        rounds: Programs that were timed.
        finished: Whether everything was tried before the time was up.
        seconds: How long it took.
    """

    name: str
    before: float
    after: float
    gains: list[Gain] = field(default_factory=list)
    tried: int = 0
    rounds: int = 0
    finished: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        state = "everything tried" if self.finished else "stopped when the time was up"
        head = (
            f"{self.name}: {seconds_text(self.before)} a step before, {seconds_text(self.after)} after "
            f"({self.before / self.after:.3f} times as fast); {len(self.gains)} of {self.tried} kernels faster, "
            f"{self.rounds} rounds in {seconds_text(self.seconds)}, {state}"
        )
        lines = [
            f"  {seconds_text(g.seconds)} -> {seconds_text(g.seconds * g.ratio)}  {g.label}: {g.choice}"
            for g in self.gains
        ]
        return "\n".join([head, *lines])


def tune(
    what: Trainer | Executable,
    batch: Mapping[str, Any] | None = None,
    *,
    seconds: float = 60.0,
    predict: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Tuning:
    """Find out how the kernels of a step run fastest on this machine; later compilations use it by themselves.

    Args:
        what: A trainer, or a compiled graph. Its variables are the same afterwards, and its results are the same bits.
        batch: Arrays by input name; None makes some up.
        seconds: When to stop, about.
        predict: Tune the model in inference mode instead of the training step of a trainer.
        progress: Is told a line after each round.

    Raises:
        OptionError: `what` is neither.
        DataError: The batch does not fit, or a check of the step fires on it.
    """
    start = time.perf_counter()
    subject = timed(what, batch, predict)
    with subject.kept() as restore:
        search = _Search(subject, restore, start + seconds, progress or (lambda _: None))
        found = search.run()
    what.recompile()
    found.seconds = time.perf_counter() - start
    return found


class _Search:
    """One search: what is known of each kernel, and what is tried next."""

    def __init__(
        self,
        subject: Timed,
        restore: Callable[[], None],
        end: float,
        tell: Callable[[str], None],
    ) -> None:
        self.subject, self.restore, self.end, self.tell = subject, restore, end, tell
        self.options = subject.session.options
        self.graph = self._optimized(subject.graph)
        self.plan: Plan = plan_for(self.graph, subject.session.layout, self.options.target)
        self.works: dict[str, Work] = forms_of(self.plan)
        self.ways = self._ways()
        self.known = tuned.winners(self.options.target)
        self.best = {f: w for f, w in self.known.items() if f in self.ways}

    def _optimized(self, graph: Graph) -> Graph:
        for stage in optimize(graph, self.options):
            assert stage.graph is not None
            graph = stage.graph
        return graph

    def _ways(self) -> dict[str, list[str]]:
        """Return the ways of each kernel that has several, the default first."""
        found = {f: choices(w.kernel, self.options.target) for f, w in self.works.items()}
        return {f: ways for f, ways in found.items() if len(ways) > 1}

    def run(self) -> Tuning:
        """Search until everything was tried or the time is up."""
        base = self._native({})
        first, total = self._times(base)
        todo = self._todo(first, total)
        rounds = max((len(self.ways[f]) for f in todo), default=1) - 1
        finished, done = True, 0
        for n in range(1, rounds + 1):
            if time.perf_counter() > self.end:
                finished = False
                break
            self._round(n, todo, base)
            done += 1
            self._keep(todo, n)
            saved = sum(first[f] * (1 - w.ratio) for f, w in self.best.items() if f in first)
            self.tell(
                f"round {n} of {rounds}: {seconds_text(total)} a step by default, {seconds_text(total - saved)} estimated"
            )
        before, after = self._judge(base)
        return Tuning(
            self.subject.name,
            before,
            after,
            self._gains(first),
            len(self.ways),
            done,
            finished,
        )

    def _todo(self, first: Mapping[str, float], total: float) -> list[str]:
        """Return the kernels that matter and are not known yet, those that take longest first."""
        open_ = [f for f in self.ways if f in first and not (f in self.best and self.best[f].done)]
        return sorted((f for f in open_ if first[f] >= _SMALL * total), key=lambda f: -first[f])

    def _round(self, n: int, todo: list[str], base: Native) -> None:
        """Give every kernel its n-th way, and note which are faster than what was known."""
        chosen = self._chosen()
        trying = {f: self.ways[f][n] for f in todo if n < len(self.ways[f])}
        ratios, _ = self._compare(base, self._native(chosen | trying))
        for form, choice in trying.items():
            ratio = ratios.get(form, 1.0)
            old = self.best.get(form, Winner(self.ways[form][0], 1.0, False))
            if ratio < _WORTH * old.ratio:
                self.best[form] = Winner(choice, ratio, False)
            else:
                self.best.setdefault(form, old)

    def _chosen(self) -> dict[str, str]:
        return {f: w.choice for f, w in self.best.items() if w.ratio < 1.0}

    def _keep(self, todo: list[str], n: int) -> None:
        """Write down what is known after a round."""
        for form in todo:
            w = self.best[form]
            self.best[form] = Winner(w.choice, w.ratio, n >= len(self.ways[form]) - 1)
        if self.options.cache:
            tuned.keep(self.options.target, {f: self.best[f] for f in todo})

    def _judge(self, base: Native) -> tuple[float, float]:
        """Return the seconds of a step by default and with what was kept; what is no faster as a whole is given up."""
        chosen = self._chosen()
        if not chosen:
            _, total = self._times(base)
            return total, total
        _, (before, after) = self._compare(base, self._native(chosen))
        if after < before:
            return before, after
        given_up = {f: Winner(self.ways[f][0], 1.0, w.done) for f, w in self.best.items()}
        self.best = given_up
        if self.options.cache:
            tuned.keep(self.options.target, given_up)
        return before, before

    def _gains(self, first: Mapping[str, float]) -> list[Gain]:
        found = [
            Gain(self.works[f].label, w.choice, first[f], w.ratio)
            for f, w in self.best.items()
            if w.ratio < 1.0 and f in first
        ]
        return sorted(found, key=lambda g: -g.seconds * (1 - g.ratio))

    # --- timing ----------------------------------------------------------------------------------

    def _native(self, chosen: Mapping[str, str]) -> Native:
        layout, target = self.subject.session.layout, self.options.target
        program = assemble(self.plan, self.graph, layout, target, choices=chosen)
        objects, entry = build(
            program, target, checked=self.options.checked, cached=self.options.cache, clocks=True
        )
        return self.subject.native(Compiled(program, objects, entry))

    def _compare(self, base: Native, other: Native) -> tuple[dict[str, float], tuple[float, float]]:
        """Return how long each kernel takes in another program, divided by its time in the base, and both totals."""
        pairs = [(self._times(base), self._times(other)) for _ in range(_TURNS)]
        forms = [f for f in pairs[0][0][0] if f in pairs[0][1][0]]
        ratios = {
            f: float(np.median([b[f] / a[f] for (a, _), (b, _) in pairs if a[f]])) for f in forms
        }
        totals = [(a, b) for (_, a), (_, b) in pairs]
        before, after = np.median(np.array(totals), axis=0)
        return ratios, (float(before), float(after))

    def _times(self, native: Native) -> tuple[dict[str, float], float]:
        """Return the seconds of a step that each kernel takes, and of the whole step: the medians of some."""
        self.restore()
        self.subject.run(native)
        native.take_times()
        records: list[Array] = []
        end = time.perf_counter() + _TURN_SECONDS
        while len(records) < 2 or (time.perf_counter() < end and len(records) < 50):
            self.subject.run(native)
            records.append(native.take_times())
        middle = np.median(np.stack(records)[:, :, 0], axis=0) / 1e9
        found: dict[str, float] = {}
        for launch, seconds in zip(native.program.launches, middle, strict=False):
            found[launch.form] = found.get(launch.form, 0.0) + float(seconds)
        return found, float(middle[-1])
